//! One request through the real hf-hub: `client cached|get CACHE ENDPOINT TYPE REPO REVISION FILE...`
//! prints a path per file. "cached" only looks into the cache, "get" downloads what is missing.

use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache, Repo, RepoType};
use std::path::PathBuf;

fn run(arguments: &[String]) -> Result<Vec<PathBuf>, String> {
    let [how, cache, endpoint, kind, id, revision, files @ ..] = arguments else {
        return Err("client cached|get CACHE ENDPOINT TYPE REPO REVISION FILE...".into());
    };
    let kind = match kind.as_str() {
        "model" => RepoType::Model,
        "dataset" => RepoType::Dataset,
        "space" => RepoType::Space,
        other => return Err(format!("no repository type: {other}")),
    };
    let cache = Cache::new(cache.into());
    let repo = Repo::with_revision(id.clone(), kind, revision.clone());
    if how == "cached" {
        let look = |file: &String| cache.repo(repo.clone()).get(file).ok_or(format!("{file}: not in the cache"));
        return files.iter().map(look).collect();
    }
    let api = ApiBuilder::from_cache(cache)
        .with_endpoint(endpoint.clone())
        .with_progress(false)
        .build()
        .map_err(|error| error.to_string())?
        .repo(repo);
    let get = |file: &String| api.get(file).map_err(|error| format!("{file}: {error}"));
    files.iter().map(get).collect()
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(paths) => paths.iter().for_each(|path| println!("{}", path.display())),
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}
