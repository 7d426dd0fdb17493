// What `doctor` prints, as text and as JSON, of a diagnosis that is made up here.
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "cli/diagnosis_json.h"
#include "cli/diagnosis_text.h"

namespace fvprefetch::cli {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;

Finding finding(Severity severity, std::string about, ErrorCode code, std::string message,
                std::string hint = {}) {
  return {severity, std::move(about), fail(code, std::move(message), std::move(hint)).value()};
}

ExaminedNode node(std::string name) {
  ExaminedDirectory eval;
  eval.role = "eval cache";
  eval.path = "/cache/eval";
  eval.real_path = "/lustre/eval";
  eval.examined = "/cache/eval";
  eval.exists = true;
  eval.rights = posix::Rights{};
  eval.rights->read = eval.rights->write = true;
  eval.rights->mode = "drwxrwsr-x";
  eval.rights->owner = 1000;
  eval.rights->group = 2000;
  eval.space = posix::Space{};
  eval.space->bytes_free = 1'200'000'000;
  eval.space->bytes_total = 28'300'000'000;
  eval.space->files_total = 1000;
  eval.space->files_free = 17;
  eval.mount = posix::Mount{};
  eval.mount->type = "lustre";
  eval.mount->source = "mds:/work";
  eval.mount->point = "/lustre";
  eval.mount->options = "rw,flock";
  ExaminedNode node;
  node.node = std::move(name);
  node.directories = {eval};
  node.endpoint = "https://huggingface.co";
  node.proxies = {{"https_proxy", "http://proxy:3128"}};
  node.no_proxy = "localhost";
  node.certificate_file = "/etc/ssl/certs/ca-certificates.crt";
  return node;
}

TestedDirectory tested() {
  TestedDirectory tested;
  tested.role = "eval cache";
  SelfTest& test = tested.test;
  test.directory = "/cache/eval/.fvprefetch";
  test.parties = {"a", "b"};
  test.between_nodes = true;
  test.tried = {{Primitive::kFlock, Verdict::kDoesNotExclude, "b got it while a held it", {}},
                {Primitive::kOfd, Verdict::kRefused, "b: Function not implemented (errno 38)", {}},
                {Primitive::kLink, Verdict::kExcludes, {}, milliseconds(3)},
                {Primitive::kMkdir, Verdict::kExcludes, {}, milliseconds(4)}};
  test.shows_afresh = milliseconds(7);
  test.waited_for = milliseconds(60'000);
  return tested;
}

Diagnosis diagnosis() {
  Diagnosis diagnosis;
  diagnosis.ranks = 2;
  diagnosis.nodes = 2;
  diagnosis.examined = {node("a"), node("b")};
  diagnosis.tested = {tested()};
  return diagnosis;
}

Start start() {
  Start start;
  start.launch.launcher = "slurm";
  start.launch.mode = Launch::Mode::kMpi;
  start.mpi_library = "Open MPI 4.1.4";
  return start;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

int times(const std::string& text, const std::string& part) {
  int count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) {
    ++count;
  }
  return count;
}

TEST(DiagnosisText, SaysAllOfAJobOnce) {
  EXPECT_EQ(
      diagnosis_text(diagnosis(), start()),
      "  launcher      slurm, 2 ranks on 2 nodes\n"
      "  MPI           Open MPI 4.1.4\n"
      "\n"
      "on 2 nodes: a, b\n"
      "  eval cache    /cache/eval\n"
      "                which is /lustre/eval\n"
      "                writable, drwxrwsr-x 1000:2000; 1.2 GB of 28.3 GB free, 17 inodes free\n"
      "                lustre from mds:/work on /lustre (rw,flock)\n"
      "  token         none: gated and private repositories are refused\n"
      "  endpoint      https://huggingface.co\n"
      "  proxy         https_proxy=http://proxy:3128\n"
      "                not for localhost\n"
      "  certificates  /etc/ssl/certs/ca-certificates.crt\n"
      "\n"
      "locks of the eval cache, in /cache/eval/.fvprefetch, between a, b\n"
      "  flock         does not exclude  b got it while a held it\n"
      "  OFD           refused           b: Function not implemented (errno 38)\n"
      "  link          excludes          a try takes at most 3 ms\n"
      "  mkdir         excludes          a try takes at most 4 ms\n"
      "  a new name    shows after 7 ms; to who had looked before and does not look afresh: not "
      "within 1 min\n"
      "  --lock auto   relies on a lease made by link alone\n");
}

TEST(DiagnosisText, GivesNodesThatDifferATableEach) {
  Diagnosis found = diagnosis();
  found.examined[1].token_from = "HF_TOKEN";
  const std::string text = diagnosis_text(found, start());
  EXPECT_EQ(times(text, "  endpoint "), 2);
  EXPECT_TRUE(has(text, "\non a\n")) << text;
  EXPECT_TRUE(has(text, "\non b\n")) << text;
  EXPECT_TRUE(has(text, "there is one, from HF_TOKEN")) << text;
}

TEST(DiagnosisText, PutsAFindingBelowWhatItIsAbout) {
  Diagnosis found = diagnosis();
  found.examined.resize(1);
  found.examined[0].findings = {
      finding(Severity::kWarning, "endpoint", ErrorCode::kOk, "plain HTTP", "use https")};
  found.findings = {
      finding(Severity::kFailure, "eval cache", ErrorCode::kNoSpace, "no inode left", "free some")};
  const std::string text = diagnosis_text(found, start());
  EXPECT_TRUE(has(text,
                  "  endpoint      https://huggingface.co\n"
                  "                warning: plain HTTP\n"
                  "                hint: use https\n"))
      << text;
  EXPECT_TRUE(has(text,
                  "made by link alone\n                FAILS: no inode left\n"
                  "                hint: free some\n"))
      << text;
}

TEST(DiagnosisText, OfOneProcessSaysHowToTryBetweenNodes) {
  Diagnosis found = diagnosis();
  found.ranks = found.nodes = 1;
  found.examined.resize(1);
  found.tested[0].test.between_nodes = false;
  Start alone;
  alone.launch.launcher = "none";
  alone.launch.mode = Launch::Mode::kAlone;
  const std::string text = diagnosis_text(found, alone);
  EXPECT_TRUE(has(text, "no launcher, 1 rank on 1 node\n")) << text;
  EXPECT_TRUE(has(text, "MPI           not needed by one process\n")) << text;
  EXPECT_TRUE(has(text, "between two processes of this host\n")) << text;
  EXPECT_TRUE(has(text, "srun -N2 fvprefetch doctor")) << text;
}

TEST(DiagnosisText, SaysWhyLocksWereNotTestedOrWhereTheyWere) {
  Diagnosis found = diagnosis();
  found.tested[0].test = {};
  found.tested[0].test.directory = "/cache/eval/.fvprefetch";
  found.tested[0].test.not_run = "a lock needs two processes to be tested";
  TestedDirectory other;
  other.role = "Hub cache";
  other.same_as = "eval cache";
  found.tested.push_back(other);
  const std::string text = diagnosis_text(found, start());
  EXPECT_TRUE(has(text, "  not tested    a lock needs two processes to be tested\n")) << text;
  EXPECT_TRUE(has(text, "locks of the Hub cache: on the same file system as the eval cache\n"))
      << text;
}

TEST(DiagnosisText, LetsNoPathGiveTheTerminalOrders) {
  Diagnosis found = diagnosis();
  found.examined[0].directories[0].path = "/cache/\x1b[2J";
  EXPECT_FALSE(has(diagnosis_text(found, start()), "\x1b"));
}

TEST(DiagnosisJson, HasEveryFigureOfTheText) {
  const json told = json::parse(diagnosis_to_json(diagnosis(), start()));
  EXPECT_EQ(told["schema"], 1);
  EXPECT_EQ(told["command"], "doctor");
  EXPECT_EQ(told["status"], "ok");
  EXPECT_EQ(told["exit_code"], 0);
  EXPECT_TRUE(told["error"].is_null());
  EXPECT_EQ(
      told["launcher"],
      json::parse(
          R"({"name": "slurm", "mode": "mpi", "ranks": 2, "mpi_library": "Open MPI 4.1.4"})"));
  ASSERT_EQ(told["nodes"].size(), 2U);
  EXPECT_EQ(told["nodes"][1]["node"], "b");
  ASSERT_EQ(told["locks"].size(), 1U);
  const json& locks = told["locks"][0];
  EXPECT_EQ(locks["role"], "eval cache");
  EXPECT_TRUE(locks["same_as"].is_null());
  EXPECT_EQ(locks["between"], "nodes");
  EXPECT_EQ(locks["parties"], json({"a", "b"}));
  EXPECT_EQ(locks["primitives"][0], json::parse(R"({"name": "flock", "verdict": "does not exclude",
                            "detail": "b got it while a held it", "slowest_try_ms": 0})"));
  EXPECT_TRUE(locks["primitives"][2]["detail"].is_null());
  EXPECT_EQ(locks["new_name"], json::parse(R"({"looked_afresh_ms": 7, "looked_again_ms": null,
                                               "waited_for_ms": 60000})"));
  EXPECT_EQ(locks["auto_relies_on"], relied_on(tested().test));
}

TEST(DiagnosisJson, OfAFailureHasItsCodeAndTheFinding) {
  Diagnosis found = diagnosis();
  found.tested[0].test = {};
  found.tested[0].test.not_run = "cannot make it";
  found.findings = {finding(Severity::kFailure, "eval cache", ErrorCode::kNoSpace, "cannot make it",
                            "free some")};
  found.error = found.findings[0].error;
  Start lock_only;
  lock_only.launch.mode = Launch::Mode::kLockOnly;
  const json told = json::parse(diagnosis_to_json(found, lock_only));
  EXPECT_EQ(told["status"], "failed");
  EXPECT_EQ(told["exit_code"], 9);
  EXPECT_EQ(told["error"]["message"], "cannot make it");
  EXPECT_EQ(told["launcher"]["mode"], "lock_only");
  EXPECT_TRUE(told["launcher"]["mpi_library"].is_null());
  EXPECT_TRUE(told["locks"][0]["between"].is_null());
  EXPECT_EQ(told["locks"][0]["not_run"], "cannot make it");
  ASSERT_EQ(told["findings"].size(), 1U);
  EXPECT_EQ(told["findings"][0]["about"], "eval cache");
  EXPECT_EQ(told["findings"][0]["error"]["hint"], "free some");
}

TEST(DiagnosisJson, IsUtf8WhateverAPathIs) {
  Diagnosis found = diagnosis();
  found.tested[0].test.directory = "/cache/\xff";
  EXPECT_FALSE(json::parse(diagnosis_to_json(found, start()), nullptr, false).is_discarded());
}

}  // namespace
}  // namespace fvprefetch::cli
