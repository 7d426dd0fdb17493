#include "source/hub.h"

#include <gtest/gtest.h>

#include <string>

#include "support/scripted_fetcher.h"

namespace fvprefetch::hub {
namespace {

constexpr const char* kEndpoint = "https://hub.example";
const std::string kCommit = "0123456789abcdef0123456789abcdef01234567";
const std::string kSha1 = "ce013625030ba8dba906f756967f9e9ca394464a";
const std::string kSha256 = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
const std::string kTreeUrl =
    "https://hub.example/api/models/org/name/tree/" + kCommit + "?recursive=true&expand=false";

Repo model(std::string id = "org/name") {
  return {RepoType::kModel, std::move(id)};
}

std::string file_json(const std::string& path, int size = 6) {
  return R"({"type":"file","oid":")" + kSha1 + R"(","size":)" + std::to_string(size) +
         R"(,"path":")" + path + R"("})";
}

class HubClient : public testing::Test {
 protected:
  [[nodiscard]] Client client(const std::string& token = "") {
    return Client(fetcher, kEndpoint, Secret(token));
  }
  test::ScriptedFetcher fetcher;
};

// Names.

struct IdRow {
  const char* name;
  std::string id;
  bool valid;
};
class RepoId : public testing::TestWithParam<IdRow> {};

TEST_P(RepoId, IsJudgedAsHuggingfaceHubDoes) {
  EXPECT_EQ(valid_repo_id(GetParam().id), GetParam().valid) << GetParam().id;
}

INSTANTIATE_TEST_SUITE_P(
    Rows, RepoId,
    testing::Values(
        IdRow{"Two", "org/name", true}, IdRow{"One", "gpt2", true},
        IdRow{"Dots", "TIGER-Lab/VideoScore2.1", true}, IdRow{"Underscore", "_org_/_name_", true},
        IdRow{"OneLetter", "a/b", true}, IdRow{"Longest", "org/" + std::string(96, 'x'), true},
        IdRow{"TooLong", "org/" + std::string(97, 'x'), false}, IdRow{"Empty", "", false},
        IdRow{"Three", "a/b/c", false}, IdRow{"EmptyOrganisation", "/name", false},
        IdRow{"EmptyName", "org/", false}, IdRow{"DoubleHyphen", "org/na--me", false},
        IdRow{"DoubleDot", "org/na..me", false}, IdRow{"Git", "org/name.git", false},
        IdRow{"HyphenFirst", "org/-name", false}, IdRow{"HyphenLast", "org/name-", false},
        IdRow{"DotFirst", ".org/name", false}, IdRow{"DotLast", "org./name", false},
        IdRow{"Blank", "org/na me", false}, IdRow{"Unicode", "org/имя", false},
        IdRow{"Newline", "org/name\n", false}, IdRow{"Percent", "org/na%2fme", false}),
    [](const auto& row) { return row.param.name; });

struct CommitRow {
  const char* name;
  std::string text;
  bool commit;
};
class Commit : public testing::TestWithParam<CommitRow> {};

TEST_P(Commit, IsFortyLowerCaseHexDigits) {
  EXPECT_EQ(is_commit(GetParam().text), GetParam().commit);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, Commit,
    testing::Values(CommitRow{"Forty", kCommit, true}, CommitRow{"Branch", "main", false},
                    CommitRow{"Short", kCommit.substr(1), false},
                    CommitRow{"Long", kCommit + "0", false},
                    CommitRow{"UpperCase", "0123456789ABCDEF0123456789abcdef01234567", false},
                    CommitRow{"NotHex", "g123456789abcdef0123456789abcdef01234567", false},
                    CommitRow{"Newline", kCommit.substr(1) + "\n", false}),
    [](const auto& row) { return row.param.name; });

TEST(RepoTypeText, HasThreeWordsAndADefault) {
  EXPECT_EQ(parse_repo_type("").value(), RepoType::kModel);
  EXPECT_EQ(parse_repo_type("model").value(), RepoType::kModel);
  EXPECT_EQ(parse_repo_type("dataset").value(), RepoType::kDataset);
  EXPECT_EQ(parse_repo_type("space").value(), RepoType::kSpace);
  EXPECT_EQ(parse_repo_type("models").error().code, ErrorCode::kUsage);
}

TEST(ToFileSpec, NamesTheBlobOfASmallFileByItsGitObjectId) {
  const FileSpec spec = to_file_spec({"config.json", 6, kSha1, "", 0, ""});
  EXPECT_EQ(spec.path, "config.json");
  EXPECT_EQ(spec.blob, kSha1);
  EXPECT_EQ(spec.size, 6U);
  EXPECT_EQ(spec.digest, (Digest{Digest::Kind::kGitSha1, kSha1}));
  EXPECT_TRUE(spec.urls.empty());
}

TEST(ToFileSpec, NamesTheBlobOfAnLfsFileByItsSha256NotThePointersId) {
  const FileSpec spec = to_file_spec({"model.bin", 999, kSha1, kSha256, 999, std::string(64, 'a')});
  EXPECT_EQ(spec.blob, kSha256);
  EXPECT_EQ(spec.size, 999U);
  EXPECT_EQ(spec.digest, (Digest{Digest::Kind::kSha256, kSha256}));
}

// Addresses.

struct UrlRow {
  const char* name;
  Repo repo;
  std::string path;
  std::string url;
};
class ResolveUrl : public testing::TestWithParam<UrlRow> {};

TEST_P(ResolveUrl, IsQuotedAsPythonDoes) {
  test::ScriptedFetcher fetcher;
  EXPECT_EQ(
      Client(fetcher, kEndpoint, Secret()).resolve_url(GetParam().repo, kCommit, GetParam().path),
      GetParam().url);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, ResolveUrl,
    testing::Values(UrlRow{"Model", model(), "a/b.bin",
                           "https://hub.example/org/name/resolve/" + kCommit + "/a/b.bin"},
                    UrlRow{"NoOrganisation", model("gpt2"), "config.json",
                           "https://hub.example/gpt2/resolve/" + kCommit + "/config.json"},
                    UrlRow{"Dataset",
                           {RepoType::kDataset, "google/fleurs"},
                           "x",
                           "https://hub.example/datasets/google/fleurs/resolve/" + kCommit + "/x"},
                    UrlRow{"Space",
                           {RepoType::kSpace, "org/app"},
                           "app.py",
                           "https://hub.example/spaces/org/app/resolve/" + kCommit + "/app.py"},
                    UrlRow{"Quoted", model(), "a b/c#d?e%f+~.bin",
                           "https://hub.example/org/name/resolve/" + kCommit +
                               "/a%20b/c%23d%3Fe%25f%2B~.bin"},
                    UrlRow{"Unicode", model(), "щ",
                           "https://hub.example/org/name/resolve/" + kCommit + "/%D1%89"}),
    [](const auto& row) { return row.param.name; });

TEST_F(HubClient, BindsTheTokenToTheEndpointsOriginAndTheHubsOwn) {
  const Credential credential = client("hf_secret").credential();
  EXPECT_EQ(credential.token.reveal(), "hf_secret");
  EXPECT_TRUE(may_see(credential, "https://hub.example/x"));
  EXPECT_TRUE(may_see(credential, "https://huggingface.co/x"));
  EXPECT_TRUE(may_see(credential, "https://hf.co/x"));
  EXPECT_FALSE(may_see(credential, "http://hub.example/x"));
  EXPECT_FALSE(may_see(credential, "http://huggingface.co/x"));
  EXPECT_FALSE(may_see(credential, "https://cdn.hf.co/x"));
  EXPECT_FALSE(may_see(credential, "https://hub.example:8443/x"));
}

TEST_F(HubClient, ATokenForHttpMayGoToHttpsOfTheSameHost) {
  const Credential credential = Client(fetcher, "http://mirror", Secret("hf_x")).credential();
  EXPECT_TRUE(may_see(credential, "https://mirror/x"));
  const Credential odd = Client(fetcher, "http://mirror:8080", Secret("hf_x")).credential();
  EXPECT_FALSE(may_see(odd, "https://mirror/x"));
}

TEST_F(HubClient, AnEndpointThatSaysWhoAsksGetsNoToken) {
  const Credential credential = Client(fetcher, "https://u:p@mirror", Secret("hf_x")).credential();
  EXPECT_FALSE(may_see(credential, "https://mirror/x"));
  EXPECT_FALSE(may_see(credential, "https://u:p@mirror/x"));
}

TEST_F(HubClient, HasNoCredentialWithoutAToken) {
  const Credential credential = client().credential();
  EXPECT_TRUE(credential.token.empty());
  EXPECT_TRUE(credential.origins.empty());
}

// Revisions.

TEST_F(HubClient, AsksOnceForTheCommitOfABranch) {
  const std::string url = "https://hub.example/api/models/org/name/revision/main";
  fetcher.answer(url, 200, R"({"id":"org/name","sha":")" + kCommit + R"("})");
  const auto commit = client("hf_x").resolve_revision(model(), "main");
  ASSERT_TRUE(commit) << commit.error().message;
  EXPECT_EQ(*commit, kCommit);
  ASSERT_EQ(fetcher.urls(), std::vector<std::string>{url});
  EXPECT_EQ(fetcher.requests()[0].credential.token.reveal(), "hf_x");
}

TEST_F(HubClient, QuotesTheSlashesOfARevision) {
  const std::string url = "https://hub.example/api/datasets/org/name/revision/refs%2Fpr%2F1";
  fetcher.answer(url, 200, R"({"sha":")" + kCommit + R"("})");
  const auto commit = client().resolve_revision({RepoType::kDataset, "org/name"}, "refs/pr/1");
  ASSERT_TRUE(commit) << commit.error().message;
  EXPECT_EQ(fetcher.urls(), std::vector<std::string>{url});
}

TEST_F(HubClient, NeverAsksForACommit) {
  EXPECT_EQ(client().resolve_revision(model(), kCommit).value(), kCommit);
  EXPECT_TRUE(fetcher.requests().empty());
}

TEST_F(HubClient, HandsOnAnErrorBelowHttp) {
  Error error;
  error.code = ErrorCode::kNetwork;
  error.message = "connection refused";
  fetcher.fail_with("https://hub.example/api/models/org/name/revision/main", error);
  const auto commit = client().resolve_revision(model(), "main");
  ASSERT_FALSE(commit);
  EXPECT_EQ(commit.error().code, ErrorCode::kNetwork);
  EXPECT_EQ(commit.error().message, "connection refused");
}

struct AnswerRow {
  const char* name;
  std::string body;
  std::string says;
};
class BadRevisionAnswer : public testing::TestWithParam<AnswerRow> {};

TEST_P(BadRevisionAnswer, IsAnIntegrityErrorThatDoubtsTheEndpoint) {
  test::ScriptedFetcher fetcher;
  fetcher.answer("https://hub.example/api/models/org/name/revision/main", 200, GetParam().body);
  const auto commit = Client(fetcher, kEndpoint, Secret()).resolve_revision(model(), "main");
  ASSERT_FALSE(commit);
  EXPECT_EQ(commit.error().code, ErrorCode::kIntegrity);
  EXPECT_NE(commit.error().message.find(GetParam().says), std::string::npos)
      << commit.error().message;
  EXPECT_NE(commit.error().hint.find("HF_ENDPOINT"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, BadRevisionAnswer,
    testing::Values(AnswerRow{"WebPage", "\n<!DOCTYPE html><html>login</html>", "got a web page"},
                    AnswerRow{"Text", "ok", "expected JSON, got other text"},
                    AnswerRow{"Empty", "", "expected JSON"},
                    AnswerRow{"Cut", R"({"sha":")", "expected JSON"},
                    AnswerRow{"Array", "[]", "expected a commit"},
                    AnswerRow{"NoSha", "{}", "expected a commit"},
                    AnswerRow{"ShortSha", R"({"sha":"abc"})", "got \"abc\""},
                    AnswerRow{"PathInSha", R"({"sha":"../../etc"})", "got \"../../etc\""},
                    AnswerRow{"NumberSha", R"({"sha":7})", "expected a commit"}),
    [](const auto& row) { return row.param.name; });

// Trees.

TEST_F(HubClient, ListsFilesOnlySortedByPath) {
  fetcher.answer(kTreeUrl, 200,
                 "[" + file_json("b.json") + R"(,{"type":"directory","oid":"x","path":"a"},)" +
                     R"({"type":"file","oid":")" + kSha1 + R"(","size":7,"path":"a/m.bin",)" +
                     R"("lfs":{"oid":")" + kSha256 + R"(","size":7,"pointerSize":134},)" +
                     R"("xetHash":")" + std::string(64, 'A') + R"("}])");
  const auto files = client().list_tree(model(), kCommit);
  ASSERT_TRUE(files) << files.error().message;
  ASSERT_EQ(files->size(), 2U);
  EXPECT_EQ((*files)[0], (RepoFile{"a/m.bin", 7, kSha1, kSha256, 7, std::string(64, 'a')}));
  EXPECT_EQ((*files)[1], (RepoFile{"b.json", 6, kSha1, "", 0, ""}));
  EXPECT_EQ(fetcher.requests().size(), 1U);
}

TEST_F(HubClient, DropsAMaskedXetHash) {
  fetcher.answer(kTreeUrl, 200,
                 R"([{"type":"file","oid":")" + kSha1 + R"(","size":7,"path":"m","xetHash":")" +
                     std::string(64, '*') + R"("}])");
  const auto files = client().list_tree(model(), kCommit);
  ASSERT_TRUE(files) << files.error().message;
  EXPECT_EQ(files->front().xet_hash, "");
}

TEST_F(HubClient, FollowsTheLinksOfAllPages) {
  const std::string second = kTreeUrl + "&limit=1000&cursor=YQ%3D%3D";
  const std::string third = "https://hub.example/page3";
  fetcher.answer(kTreeUrl, 200, "[" + file_json("a") + "]",
                 {{"link", "<https://x/a,b>; rel=\"prev\", <" + second + ">; rel=\"next\""}});
  fetcher.answer(second, 200, "[" + file_json("b") + "]", {{"link", "</page3>;rel=next"}});
  fetcher.answer(third, 200, "[" + file_json("c") + "]",
                 {{"link", "<" + third + ">; rel=\"last\""}});
  const auto files = client("hf_x").list_tree(model(), kCommit);
  ASSERT_TRUE(files) << files.error().message;
  ASSERT_EQ(files->size(), 3U);
  EXPECT_EQ(files->back().path, "c");
  EXPECT_EQ(fetcher.urls(), (std::vector<std::string>{kTreeUrl, second, third}));
}

TEST_F(HubClient, KeepsTheTokenBoundToTheEndpointWhenAPageIsElsewhere) {
  fetcher.answer(kTreeUrl, 200, "[]", {{"link", "<https://other.example/p2>; rel=\"next\""}});
  fetcher.answer("https://other.example/p2", 200, "[" + file_json("a") + "]");
  const auto files = client("hf_x").list_tree(model(), kCommit);
  ASSERT_TRUE(files) << files.error().message;
  ASSERT_EQ(fetcher.requests().size(), 2U);
  EXPECT_FALSE(may_see(fetcher.requests()[1].credential, "https://other.example/p2"));
}

// Opening a file.

const std::string kFileUrl = std::string(kEndpoint) + "/org/name/resolve/" + kCommit + "/a.bin";

TEST_F(HubClient, AFileIsOpenWhereItsRequestLeavesTheHub) {
  fetcher.answer(kFileUrl, 302, "", {{"location", "https://cdn.example/x?Signature=s"}});
  const auto led = client("hf_x").open_file(fetcher, model(), kCommit, "a.bin");
  ASSERT_TRUE(led) << led.error().message;
  EXPECT_EQ(*led, "https://cdn.example/x?Signature=s");
  ASSERT_EQ(fetcher.requests().size(), 1U);  // nothing is asked of the other host
  EXPECT_TRUE(fetcher.requests()[0].head_only);
  EXPECT_TRUE(may_see(fetcher.requests()[0].credential, kFileUrl));
}

TEST_F(HubClient, ARenamedRepositoryIsFollowedWhileAFileIsOpened) {
  const std::string renamed =
      std::string(kEndpoint) + "/org/new-name/resolve/" + kCommit + "/a.bin";
  fetcher.answer(kFileUrl, 307, "", {{"location", "/org/new-name/resolve/" + kCommit + "/a.bin"}});
  fetcher.answer(renamed, 307, "", {{"location", "/api/resolve-cache/x?etag=1"}});
  const auto led = client().open_file(fetcher, model(), kCommit, "a.bin");
  ASSERT_TRUE(led) << led.error().message;
  EXPECT_EQ(*led, std::string(kEndpoint) + "/api/resolve-cache/x?etag=1");
}

TEST_F(HubClient, AFileThatComesAtOnceIsOpenAtItsOwnAddress) {
  fetcher.answer(kFileUrl, 200);
  const auto led = client().open_file(fetcher, model(), kCommit, "a.bin");
  ASSERT_TRUE(led) << led.error().message;
  EXPECT_EQ(*led, kFileUrl);
}

TEST_F(HubClient, AFileThatIsNotOursSaysWhy) {
  fetcher.answer(kFileUrl, 403, "", {{"x-error-code", "GatedRepo"}});
  const auto led = client("hf_x").open_file(fetcher, model(), kCommit, "a.bin");
  ASSERT_FALSE(led);
  EXPECT_EQ(led.error().code, ErrorCode::kAccess);
  EXPECT_EQ(led.error().reason, "GatedRepo");
}

TEST_F(HubClient, AFileIsNotOpenedWithoutTlsAfterIt) {
  fetcher.answer(kFileUrl, 302, "", {{"location", "http://cdn.example/x"}});
  EXPECT_FALSE(client().open_file(fetcher, model(), kCommit, "a.bin"));
}

TEST_F(HubClient, OpeningAFileEndsWhereRedirectsGoRound) {
  fetcher.answer(kFileUrl, 302, "", {{"location", kFileUrl}});
  const auto led = client().open_file(fetcher, model(), kCommit, "a.bin");
  ASSERT_FALSE(led);
  EXPECT_EQ(led.error().code, ErrorCode::kNetwork);
}

TEST_F(HubClient, RefusesANextPageWithoutTls) {
  fetcher.answer(kTreeUrl, 200, "[]", {{"link", "<http://hub.example/p2>; rel=\"next\""}});
  const auto files = client().list_tree(model(), kCommit);
  ASSERT_FALSE(files);
  EXPECT_EQ(files.error().code, ErrorCode::kIntegrity);
  EXPECT_EQ(fetcher.requests().size(), 1U);
}

TEST_F(HubClient, RefusesPagesThatGoRound) {
  fetcher.answer(kTreeUrl, 200, "[]", {{"link", "<" + kTreeUrl + ">; rel=\"next\""}});
  const auto files = client().list_tree(model(), kCommit);
  ASSERT_FALSE(files);
  EXPECT_EQ(files.error().code, ErrorCode::kIntegrity);
  EXPECT_NE(files.error().message.find("do not end"), std::string::npos);
  EXPECT_EQ(fetcher.requests().size(), 1U);
}

TEST_F(HubClient, ForgivesAnEntryThatTwoPagesRepeat) {
  fetcher.answer(kTreeUrl, 200, "[" + file_json("a") + "," + file_json("a") + "]");
  const auto files = client().list_tree(model(), kCommit);
  ASSERT_TRUE(files) << files.error().message;
  EXPECT_EQ(files->size(), 1U);
}

TEST_F(HubClient, AcceptsAnEmptyRepository) {
  fetcher.answer(kTreeUrl, 200, "[]");
  const auto files = client().list_tree(model(), kCommit);
  ASSERT_TRUE(files) << files.error().message;
  EXPECT_TRUE(files->empty());
}

class HostileTree : public testing::TestWithParam<AnswerRow> {};

TEST_P(HostileTree, IsRefusedWhole) {
  test::ScriptedFetcher fetcher;
  fetcher.answer(kTreeUrl, 200, "[" + file_json("good") + "," + GetParam().body + "]");
  const auto files = Client(fetcher, kEndpoint, Secret()).list_tree(model(), kCommit);
  ASSERT_FALSE(files);
  EXPECT_EQ(files.error().code, ErrorCode::kIntegrity);
  EXPECT_NE(files.error().message.find(GetParam().says), std::string::npos)
      << files.error().message;
  EXPECT_EQ(files.error().message.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, HostileTree,
    testing::Values(
        AnswerRow{"Parent", file_json("../../x"), "\"..\" segment"},
        AnswerRow{"ParentInside", file_json("a/../../x"), "\"..\" segment"},
        AnswerRow{"Backslashes", file_json("a\\\\..\\\\..\\\\x"), "\"..\" segment"},
        AnswerRow{"Absolute", file_json("/etc/passwd"), "is absolute"},
        AnswerRow{"EmptySegment", file_json("a//b"), "empty segment"},
        AnswerRow{"Newline", file_json("a\\nb"), "control character"},
        AnswerRow{"Nul", file_json("a\\u0000b"), "control character"},
        AnswerRow{"EmptyPath", file_json(""), "is empty"},
        AnswerRow{"NoPath", R"({"type":"file","oid":"x","size":1})", "is empty"},
        AnswerRow{"NegativeSize", file_json("a", -1), "size that no file can have (-1)"},
        AnswerRow{"HugeSize", R"({"type":"file","oid":"x","size":9223372036854775808,"path":"a"})",
                  "size that no file can have"},
        AnswerRow{"FileThatIsAFolder", file_json("good/x"),
                  "`good` as a file and as the folder of `good/x`"},
        AnswerRow{"ObjectIdIsAPath", R"({"type":"file","oid":"../x","size":1,"path":"a"})",
                  "no git object id"},
        AnswerRow{"LfsIdIsShort",
                  R"({"type":"file","oid":")" + kSha1 +
                      R"(","size":1,"path":"a","lfs":{"oid":"abc","size":1}})",
                  "no LFS object id"},
        AnswerRow{"TwoContents", file_json("good", 7), "listed twice"},
        AnswerRow{"EntryIsANumber", "7", "expected an array of files"}),
    [](const auto& row) { return row.param.name; });

RepoFile repo_file(std::string path, std::uint64_t size, std::string sha256 = {}) {
  RepoFile file;
  file.path = std::move(path);
  file.size = size;
  file.lfs_sha256 = std::move(sha256);
  return file;
}

TEST(ListFault, IsFoundWhateverTheOrder) {
  EXPECT_EQ(list_fault({repo_file("a/b", 1), repo_file("a-b", 1), repo_file("a.b", 1)}), "");
  EXPECT_NE(list_fault({repo_file("a/b/c", 1), repo_file("a-b", 1), repo_file("a", 1)}), "");
  EXPECT_EQ(list_fault({repo_file("x", 5, "d1"), repo_file("y", 5, "d1")}), "");
  EXPECT_NE(list_fault({repo_file("x", 5, "d1"), repo_file("y", 6, "d1")}), "");
  constexpr std::uint64_t kHalf = std::uint64_t{1} << 62U;
  EXPECT_EQ(list_fault({repo_file("x", kHalf), repo_file("y", kHalf - 1)}), "");
  EXPECT_NE(list_fault({repo_file("x", kHalf), repo_file("y", kHalf)}), "");
  EXPECT_NE(list_fault({repo_file("x", ~std::uint64_t{0})}), "");
}

TEST_F(HubClient, RefusesATreeThatIsNoArray) {
  fetcher.answer(kTreeUrl, 200, R"({"error":"no"})");
  EXPECT_EQ(client().list_tree(model(), kCommit).error().code, ErrorCode::kIntegrity);
}

// Final answers, in the order of huggingface_hub.

struct ExplainRow {
  const char* name;
  const char* token;
  int status;
  test::ScriptedFetcher::Headers headers;
  ErrorCode code;
  std::string says;
  std::string hints;
};
class Explain : public testing::TestWithParam<ExplainRow> {};

TEST_P(Explain, HasWordsOfItsOwn) {
  const ExplainRow& row = GetParam();
  test::ScriptedFetcher fetcher;
  const std::string url = "https://hub.example/api/models/org/name/revision/main";
  fetcher.answer(url, row.status, "{}", row.headers);
  const auto commit =
      Client(fetcher, kEndpoint, Secret(row.token)).resolve_revision(model(), "main");
  ASSERT_FALSE(commit);
  const Error& error = commit.error();
  EXPECT_EQ(error.code, row.code);
  EXPECT_EQ(error.message, "cannot get revision `main` of `org/name`: " + row.says);
  EXPECT_NE(error.hint.find(row.hints), std::string::npos) << error.hint;
  EXPECT_EQ(error.subject, url);
  EXPECT_EQ((error.message + error.hint).find("hf_secret"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    Rows, Explain,
    testing::Values(
        ExplainRow{"RevisionNotFound",
                   "",
                   404,
                   {{"x-error-code", "RevisionNotFound"}},
                   ErrorCode::kNotFound,
                   "the repository has no such branch, tag or commit",
                   "https://hub.example/org/name/tree/main"},
        ExplainRow{"EntryNotFound",
                   "",
                   404,
                   {{"x-error-code", "EntryNotFound"}},
                   ErrorCode::kNotFound,
                   "the repository has no such file at this revision",
                   ""},
        ExplainRow{"GatedWithoutToken",
                   "",
                   401,
                   {{"x-error-code", "GatedRepo"}},
                   ErrorCode::kAccess,
                   "the repository is gated and no token was sent",
                   "accept the licence at https://hub.example/org/name, then"},
        ExplainRow{"GatedWithToken",
                   "hf_secret",
                   403,
                   {{"x-error-code", "GatedRepo"}},
                   ErrorCode::kAccess,
                   "the repository is gated and its licence was not accepted with this token's "
                   "account",
                   "accept the licence at https://hub.example/org/name;"},
        ExplainRow{"BadToken",
                   "hf_secret",
                   401,
                   {{"x-error-message", "Invalid credentials in Authorization header"}},
                   ErrorCode::kAccess,
                   "the Hub refused the token",
                   "settings/tokens"},
        ExplainRow{"BadTokenForAGatedRepo",
                   "hf_secret",
                   401,
                   {{"x-error-code", "GatedRepo"},
                    {"x-error-message", "Invalid credentials in Authorization header"}},
                   ErrorCode::kAccess,
                   "the Hub refused the token",
                   "settings/tokens"},
        ExplainRow{"Disabled",
                   "",
                   403,
                   {{"x-error-message", "Access to this resource is disabled."}},
                   ErrorCode::kAccess,
                   "the Hub has disabled access to the repository",
                   ""},
        ExplainRow{"RepoNotFoundWithToken",
                   "hf_secret",
                   404,
                   {{"x-error-code", "RepoNotFound"}},
                   ErrorCode::kNotFound,
                   "the repository does not exist, or it is private and this token may not see it",
                   "https://hub.example/org/name"},
        ExplainRow{"RepoNotFoundWithoutToken",
                   "",
                   404,
                   {{"x-error-code", "RepoNotFound"}},
                   ErrorCode::kNotFound,
                   "the repository does not exist, or it is private",
                   "set HF_TOKEN"},
        ExplainRow{"UnauthenticatedWithoutToken",
                   "",
                   401,
                   {{"x-error-message", "Invalid username or password."}},
                   ErrorCode::kAccess,
                   "no token was sent; the repository does not exist, or it is private or gated",
                   "set HF_TOKEN"},
        ExplainRow{"UnauthenticatedWithToken",
                   "hf_secret",
                   401,
                   {},
                   ErrorCode::kAccess,
                   "the repository does not exist, or this token may not see it (401)",
                   ""},
        ExplainRow{"Forbidden",
                   "hf_secret",
                   403,
                   {{"x-error-message", "no\nway"}},
                   ErrorCode::kAccess,
                   "access was refused (403: no\\nway)",
                   "fine-grained"},
        ExplainRow{"PlainNotFound",
                   "",
                   404,
                   {},
                   ErrorCode::kNotFound,
                   "the Hub does not have it (404)",
                   "https://hub.example/org/name"},
        ExplainRow{"RateLimited",
                   "",
                   429,
                   {{"ratelimit", "\"api\";r=0;t=55"}},
                   ErrorCode::kRateLimited,
                   "the Hub asks to come back later (429)",
                   "HF_TOKEN"},
        ExplainRow{"RateLimitedBy403",
                   "",
                   403,
                   {{"retry-after", "soon"}},
                   ErrorCode::kRateLimited,
                   "the Hub asks to come back later (403)",
                   "HF_TOKEN"},
        ExplainRow{"ServerError", "", 503, {}, ErrorCode::kNetwork, "the Hub answered 503", ""}),
    [](const auto& row) { return row.param.name; });

TEST_F(HubClient, SuspectsAMissingPathBehindAnIdThatEndsLikeAFile) {
  Response response;
  response.head.status = 401;
  const Error file = client().explain(model("weights/raft.pth"), "revision `main`", response);
  EXPECT_NE(file.hint.find("meant as a path"), std::string::npos) << file.hint;
  const Error repo = client().explain(model(), "revision `main`", response);
  EXPECT_EQ(repo.hint.find("meant as a path"), std::string::npos) << repo.hint;
}

TEST_F(HubClient, ShowsNoQueryOfTheAddressThatAnswered) {
  Response response;
  response.head.status = 404;
  response.head.url = "https://cdn.example/x?Signature=secret";
  EXPECT_EQ(client().explain(model(), "x", response).subject, "https://cdn.example/x");
}

}  // namespace
}  // namespace fvprefetch::hub
