// Calls into the real @huggingface/hub, one per line of JSON on standard input, one line of JSON back:
// {"call": "snapshotDownload", "args": {...}, "offline": true} -> {"value": ...} or {"error": class, "text": ...}
import { createInterface } from "node:readline";
import { pathToFileURL } from "node:url";

const hub = await import(pathToFileURL(process.argv[2] + "/@huggingface/hub/dist/index.mjs"));

const calls = {
  snapshotDownload: hub.snapshotDownload,
  downloadFileToCacheDir: hub.downloadFileToCacheDir,
  async scanCacheDir({ cacheDir }) {
    const { repos, warnings } = await hub.scanCacheDir(cacheDir);
    return { repos: repos.map((r) => r.id.name), warnings: warnings.map(String) };
  },
};

async function answer({ call, args, offline }) {
  if (offline) {
    args.fetch = () => Promise.reject(new Error("a request although offline"));
  }
  try {
    return { value: await calls[call](args) };
  } catch (error) {
    return { error: error.constructor.name, text: String(error.message) };
  }
}

// What the library prints must not be taken for an answer.
console.debug = console.log = console.error;
for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(JSON.stringify(await answer(JSON.parse(line))) + "\n");
}
