// The command around the test hub: `testhub serve` until a signal ends it, `testhub demo` to make
// stand-ins for the checkpoints of a manifest.

#include "demo.h"
#include "testhub.h"

#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <stdexcept>

namespace {

namespace fs = std::filesystem;
using fvprefetch::testhub::DemoOptions;
using fvprefetch::testhub::HubOptions;
using fvprefetch::testhub::TestHub;

// By rename, so that whoever waits for the file never reads half of it.
void write_port_file(const fs::path& file, const TestHub& hub) {
  const nlohmann::ordered_json content = {
      {"url", hub.url()}, {"cdn_url", hub.cdn_url()}, {"pid", ::getpid()}};
  fs::path temporary = file;
  temporary += "." + std::to_string(::getpid()) + ".tmp";
  std::ofstream out(temporary);
  out << content.dump() << "\n";
  out.close();
  if (!out) throw std::runtime_error("cannot write " + temporary.string());
  fs::rename(temporary, file);
}

// A connection and the file it sends are two descriptors; the usual 1024 end at 500 clients.
void allow_many_connections() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  limit.rlim_cur = limit.rlim_max;
  (void)::setrlimit(RLIMIT_NOFILE, &limit);  // best effort: fewer connections then
}

void serve(const HubOptions& options, const fs::path& port_file) {
  if (!fs::is_directory(options.root)) {
    throw std::runtime_error(options.root.string() + " is not a folder");
  }
  allow_many_connections();
  // Before any thread starts, so that all of them inherit the mask and sigwait gets the signal.
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  fs::remove(port_file);  // that of an earlier run would be taken for ours
  const TestHub hub(options);
  write_port_file(port_file, hub);
  std::fprintf(stderr, "testhub: %s at %s, LFS files at %s\n", options.root.c_str(),
               hub.url().c_str(), hub.cdn_url().c_str());
  int signal = 0;
  sigwait(&signals, &signal);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app("A Hugging Face hub and file server for tests and for the demo");
  app.require_subcommand(1);

  HubOptions options;
  fs::path port_file;
  CLI::App* serve_command = app.add_subcommand("serve", "Serve a folder until SIGTERM or SIGINT");
  serve_command
      ->add_option("--root", options.root,
                   "Folder with models/, datasets/, spaces/, "
                   "files/, plain/")
      ->required();
  serve_command->add_option("--bind", options.bind, "Address to listen on")->capture_default_str();
  serve_command->add_option("--port", options.port, "0: chosen by the kernel")
      ->capture_default_str();
  serve_command->add_option("--port-file", port_file, "JSON with url, cdn_url and pid goes here")
      ->required();
  serve_command->add_option("--cdn-bind", options.cdn_bind,
                            "Address of the second host that sends LFS files (default: --bind)");
  serve_command->add_option("--page-size", options.page_size, "Entries on a page of /tree")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  serve_command->add_option("--throttle", options.bytes_per_second,
                            "Bytes per second of all file bodies together");
  serve_command->add_flag("--verbose", options.log_requests, "A line on stderr for each request");

  DemoOptions demo;
  CLI::App* demo_command =
      app.add_subcommand("demo", "Make stand-ins for a manifest's checkpoints in a hub's folder");
  demo_command->add_option("--manifest", demo.manifest, "Manifest of real checkpoints")->required();
  demo_command->add_option("--root", demo.root, "Folder of the hub")->required();
  demo_command->add_option("--url", demo.url, "Address of the hub")->required();
  demo_command->add_option("--out", demo.out, "The manifest's copy for the hub goes here")
      ->required();
  demo_command->add_option("--bytes", demo.bytes, "Size of a binary stand-in")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();

  CLI11_PARSE(app, argc, argv);
  try {
    if (serve_command->parsed()) serve(options, port_file);
    if (demo_command->parsed()) make_demo(demo);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "testhub: %s\n", error.what());
    return 1;
  }
  return 0;
}
