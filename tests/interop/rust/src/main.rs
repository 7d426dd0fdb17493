//! One request through the real hf-hub, 0.x or 1.x:
//! `fvprefetch-interop 0|1 cached|get CACHE ENDPOINT TYPE REPO REVISION FILE...` prints a path per file.
//! "cached" only looks into the cache, "get" downloads what is missing.

use std::fmt::Display;
use std::path::PathBuf;

struct Request<'a> {
    only_cached: bool,
    cache: &'a str,
    endpoint: &'a str,
    kind: &'a str,
    id: &'a str,
    revision: &'a str,
    files: &'a [String],
}

type Paths = Result<Vec<PathBuf>, String>;

fn text(error: impl Display) -> String {
    error.to_string()
}

fn by_0(ask: &Request) -> Paths {
    use hf_hub_0::{api::sync::ApiBuilder, Cache, Repo, RepoType};
    let kind = match ask.kind {
        "dataset" => RepoType::Dataset,
        "space" => RepoType::Space,
        _ => RepoType::Model,
    };
    let cache = Cache::new(ask.cache.into());
    let repo = Repo::with_revision(ask.id.into(), kind, ask.revision.into());
    if ask.only_cached {
        let look = |file: &String| cache.repo(repo.clone()).get(file).ok_or(format!("{file}: not in the cache"));
        return ask.files.iter().map(look).collect();
    }
    let builder = ApiBuilder::from_cache(cache).with_endpoint(ask.endpoint.into()).with_progress(false);
    let api = builder.build().map_err(text)?.repo(repo);
    ask.files.iter().map(|file| api.get(file).map_err(|error| format!("{file}: {error}"))).collect()
}

fn by_1(ask: &Request) -> Paths {
    use hf_hub_1::{HFClient, HFClientSync};
    let inner = HFClient::builder().endpoint(ask.endpoint).cache_dir(ask.cache).build().map_err(text)?;
    let client = HFClientSync::from_inner(inner).map_err(text)?;
    let (owner, name) = ask.id.split_once('/').ok_or("no owner")?;
    // Each type of repository is a type of its own.
    macro_rules! paths {
        ($repo:expr) => {{
            let repo = $repo;
            let one = |file: &String| {
                let asked = repo.download_file().filename(file).revision(ask.revision);
                asked.local_files_only(ask.only_cached).send().map_err(|error| format!("{file}: {error}"))
            };
            ask.files.iter().map(one).collect()
        }};
    }
    match ask.kind {
        "dataset" => paths!(client.dataset(owner, name)),
        "space" => paths!(client.space(owner, name)),
        _ => paths!(client.model(owner, name)),
    }
}

fn run(arguments: &[String]) -> Paths {
    let [version, how, cache, endpoint, kind, id, revision, files @ ..] = arguments else {
        return Err("fvprefetch-interop 0|1 cached|get CACHE ENDPOINT TYPE REPO REVISION FILE...".into());
    };
    let ask = Request { only_cached: how == "cached", cache, endpoint, kind, id, revision, files };
    if version == "0" {
        by_0(&ask)
    } else {
        by_1(&ask)
    }
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
