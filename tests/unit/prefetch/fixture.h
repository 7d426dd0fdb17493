// A run of prefetch() over a scripted network and a clock that the test moves, with real files in a
// directory of the test's own.
#pragma once

#include <gtest/gtest.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/digest.h"
#include "fvprefetch/prefetch.h"
#include "prefetch/run.h"
#include "support/fake_clock.h"
#include "support/matchers.h"
#include "support/scripted_transport.h"
#include "support/temp_dir.h"

namespace fvprefetch::testing {

inline const std::string kCommit(40, 'c');
inline const std::string kApi = "https://hub.test/api/models/org/model";
inline const std::string kTree = kApi + "/tree/" + kCommit + "?recursive=true&expand=false";
inline const std::string kFiles = "https://hub.test/org/model/resolve/" + kCommit;

/// The session owns its transport; the test wants to look at it afterwards.
class Borrowed : public Transport {
 public:
  explicit Borrowed(Transport& inner) : inner_(inner) {}
  TransferId start(const Request& request, BodySink& sink) override {
    return inner_.start(request, sink);
  }
  std::vector<Completion> poll(Clock::TimePoint until, const std::stop_token& stop) override {
    return inner_.poll(until, stop);
  }
  void cancel(TransferId id) override { inner_.cancel(id); }
  [[nodiscard]] std::uint64_t requests() const override { return inner_.requests(); }

 private:
  Transport& inner_;
};

class Recorder : public Observer {
 public:
  void on_event(const Event& event) override { events.push_back(event); }
  template <typename T>
  [[nodiscard]] std::vector<T> all() const {
    std::vector<T> found;
    for (const Event& event : events) {
      if (const T* one = std::get_if<T>(&event)) found.push_back(*one);
    }
    return found;
  }
  std::vector<Event> events;
};

class PrefetchTest : public ::testing::Test {
 protected:
  PrefetchTest() {
    options.cache_dir = dir / "eval";
    options.hf_cache_dir = dir / "hub";
    options.observer = &seen;
    environment["TMPDIR"] = temporary.path();  // FastVideo's locks lie there
    options.environment = [this](std::string_view name) -> std::optional<std::string> {
      const auto it = environment.find(std::string(name));
      return it == environment.end() ? std::nullopt : std::optional(it->second);
    };
  }

  Report run(const std::string& entries) {
    const auto manifest = parse_manifest(entries);
    if (!manifest) return failed_report(manifest.error());
    Seams seams;
    seams.clock = &clock;
    seams.make_transport = [this] { return std::make_unique<Borrowed>(wire); };
    return prefetch_with(*manifest, options, seams);
  }

  /// The Hub lists `files` (path -> text) at kCommit.
  void hub_lists(const std::map<std::string, std::string>& files, bool revision = true) {
    if (revision) {
      wire.on(kApi + "/revision/main", Answer::whole(R"({"sha": ")" + kCommit + R"("})"));
    }
    std::string tree = "[";
    for (const auto& [path, text] : files) {
      tree += (tree.size() > 1 ? "," : "") + std::string(R"({"type":"file","path":")") + path +
              R"(","size":)" + std::to_string(text.size()) + R"(,"oid":")" + git_sha1_hex(text) +
              "\"}";
    }
    wire.on(kTree, Answer::whole(tree + "]"));
  }

  TempDir dir;
  TempDir temporary;
  FakeClock clock;
  ScriptedTransport wire{clock};
  Recorder seen;
  Options options;
  std::map<std::string, std::string> environment{{"HF_ENDPOINT", "https://hub.test"},
                                                 {"HOME", dir.path()}};
};

}  // namespace fvprefetch::testing
