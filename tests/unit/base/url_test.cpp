#include "base/url.h"

#include <gtest/gtest.h>

#include <ostream>
#include <type_traits>

#include "support/matchers.h"

namespace fvprefetch {
namespace {

using testing::FailsWith;
using testing::IsOk;
using testing::row_name;

TEST(ParseUrl, TakesAUrlApart) {
  const auto url = parse_url("HTTPS://Hub.Example:8443/a%2Fb/c.bin?x=1&y#end");
  ASSERT_TRUE(IsOk(url));
  EXPECT_EQ(url->scheme, "https");
  EXPECT_EQ(url->host, "hub.example");
  EXPECT_EQ(url->port, 8443);
  EXPECT_EQ(url->path, "/a%2Fb/c.bin");
  EXPECT_EQ(url->query, "x=1&y");
  EXPECT_FALSE(url->has_user);
}

struct Origin {
  const char* name;
  const char* url;
  const char* origin;
};
constexpr Origin kOrigins[] = {
    {"https_has_port_443", "https://hub.example/x", "https://hub.example:443"},
    {"http_has_port_80", "http://hub.example", "http://hub.example:80"},
    {"explicit_port", "http://127.0.0.1:8080/x", "http://127.0.0.1:8080"},
    {"default_port_spelled_out_is_the_same", "https://hub.example:443/", "https://hub.example:443"},
    {"upper_case_is_the_same", "https://HUB.example/", "https://hub.example:443"},
    {"ipv6_in_brackets", "https://[::1]:9/x", "https://[::1]:9"},
    // What comes before @ is no host, however much it looks like one.
    {"user_that_looks_like_the_hub", "https://huggingface.co@evil.example/x",
     "https://evil.example:443"},
    {"user_and_password", "https://huggingface.co:443@evil.example/x", "https://evil.example:443"},
    {"hub_as_first_label", "https://huggingface.co.evil.example/",
     "https://huggingface.co.evil.example:443"},
    // Browsers would go to hub.example; libcurl does not, and it is libcurl that connects.
    {"backslash_before_the_at_sign", "https://hub.example\\@evil.example/",
     "https://evil.example:443"},
    {"at_sign_in_the_path", "https://hub.example/@evil.example", "https://hub.example:443"},
    {"at_sign_in_the_query", "https://hub.example?@evil.example", "https://hub.example:443"},
    {"hash_ends_the_host", "https://hub.example#@evil.example", "https://hub.example:443"},
};

class UrlOrigin : public ::testing::TestWithParam<Origin> {};

TEST_P(UrlOrigin, IsWhereTheConnectionGoes) {
  const auto url = parse_url(GetParam().url);
  ASSERT_TRUE(IsOk(url));
  EXPECT_EQ(url->origin(), GetParam().origin);
}

INSTANTIATE_TEST_SUITE_P(Rows, UrlOrigin, ::testing::ValuesIn(kOrigins), row_name<Origin>);

struct NoUrl {
  const char* name;
  std::string text;
};
const NoUrl kNoUrls[] = {
    {"empty", ""},
    {"repo_id", "org/name"},
    {"path", "/shared/file"},
    {"no_scheme", "hub.example/x"},
    {"another_scheme", "ftp://hub.example/x"},
    {"file_scheme", "file:///etc/passwd"},
    {"no_host", "https:///"},
    {"port_too_large", "https://hub.example:70000/"},
    {"port_of_letters", "https://hub.example:pw/"},
    {"blank_in_the_host", "https://hub example/"},
    {"backslash_in_the_host", "https://hub.example\\.evil.example/"},
    {"newline", "https://hub.example/\r\nx: y"},
    {"nul", std::string("https://hub.example\0.evil.example/", 34)},
};

class UrlRefused : public ::testing::TestWithParam<NoUrl> {};

TEST_P(UrlRefused, AsAUsageError) {
  EXPECT_TRUE(FailsWith(parse_url(GetParam().text), ErrorCode::kUsage));
}

INSTANTIATE_TEST_SUITE_P(Rows, UrlRefused, ::testing::ValuesIn(kNoUrls), row_name<NoUrl>);

struct Reference {
  const char* name;
  const char* base;
  const char* reference;
  const char* resolved;
};
constexpr char kBase[] = "https://hub.example/o/n/resolve/main/f.bin?old=1";
constexpr Reference kReferences[] = {
    {"absolute", kBase, "http://cdn.example/x?sig=a%2Fb", "http://cdn.example/x?sig=a%2Fb"},
    {"absolute_path_keeps_its_query", kBase, "/api/resolve-cache/f.bin?%2Ff=&etag=%22a%22",
     "https://hub.example/api/resolve-cache/f.bin?%2Ff=&etag=%22a%22"},
    {"relative_path", kBase, "g.bin", "https://hub.example/o/n/resolve/main/g.bin"},
    {"parent_path", kBase, "../g.bin", "https://hub.example/o/n/resolve/g.bin"},
    {"only_a_query", kBase, "?new=2", "https://hub.example/o/n/resolve/main/f.bin?new=2"},
    {"another_host_of_the_same_scheme", kBase, "//cdn.example/x", "https://cdn.example/x"},
    {"port_stays", "http://127.0.0.1:8080/a", "/b", "http://127.0.0.1:8080/b"},
    {"fragment_is_not_sent", kBase, "/x#end", "https://hub.example/x"},
    {"blank_is_encoded", kBase, "/a b", "https://hub.example/a%20b"},
};

class UrlReference : public ::testing::TestWithParam<Reference> {};

TEST_P(UrlReference, ResolvesByRfc3986) {
  const Reference& row = GetParam();
  const auto resolved = resolve_reference(row.base, row.reference);
  ASSERT_TRUE(IsOk(resolved));
  EXPECT_EQ(*resolved, row.resolved);
}

INSTANTIATE_TEST_SUITE_P(Rows, UrlReference, ::testing::ValuesIn(kReferences), row_name<Reference>);

TEST(ResolveReference, RefusesToLeaveHttp) {
  EXPECT_TRUE(FailsWith(resolve_reference(kBase, "file:///etc/passwd"), ErrorCode::kUsage));
}

struct Redaction {
  const char* name;
  std::string url;
  const char* shown;
};
const Redaction kRedactions[] = {
    {"nothing_to_hide", "https://hub.example/a/b.bin", "https://hub.example/a/b.bin"},
    {"port_is_shown", "http://127.0.0.1:8080/a", "http://127.0.0.1:8080/a"},
    {"user", "https://SECRET@hub.example/a", "https://hub.example/a"},
    {"user_and_password", "https://me:SECRET@hub.example/a", "https://hub.example/a"},
    {"query", "https://hub.example/a?token=SECRET", "https://hub.example/a"},
    {"fragment", "https://hub.example/a#SECRET", "https://hub.example/a"},
    {"other_scheme", "s3://me:SECRET@bucket/key?SECRET", "s3://bucket/key"},
    {"blank_in_the_path", "https://me:SECRET@hub.example/a b?SECRET", "https://hub.example/a%20b"},
    {"password_that_breaks_the_port", "https://me:SECRET", "<URL>"},
    {"no_scheme", "me:SECRET@hub.example", "<URL>"},
    {"control_character", "https://hub.example/\nSECRET", "<URL>"},
    {"nul", std::string("https://hub.example/\0SECRET", 27), "<URL>"},
    {"garbage", "\xff\xfe SECRET", "<URL>"},
    {"empty", "", "<URL>"},
};

class UrlRedaction : public ::testing::TestWithParam<Redaction> {};

TEST_P(UrlRedaction, ShowsWhatIsSafe) {
  EXPECT_EQ(redact(GetParam().url), GetParam().shown);
}

TEST_P(UrlRedaction, LeaksNothingIntoErrorTexts) {
  const auto url = parse_url(GetParam().url);
  if (!url) {
    EXPECT_EQ(describe(url.error()).find("SECRET"), std::string::npos);
  }
  const auto resolved = resolve_reference("https://me:SECRET@hub.example/?SECRET", "ftp://SECRET");
  ASSERT_FALSE(resolved.has_value());
  EXPECT_EQ(describe(resolved.error()).find("me:"), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(Rows, UrlRedaction, ::testing::ValuesIn(kRedactions), row_name<Redaction>);

TEST(Quote, IsPythonsWithSlashesKept) {
  EXPECT_EQ(quote("a b/c+d%~_.-\xc3\xa9"), "a%20b/c%2Bd%25~_.-%C3%A9");
}

TEST(Quote, WithoutKeepEncodesSlashesOfARevision) {
  EXPECT_EQ(quote("refs/pr/1", ""), "refs%2Fpr%2F1");
}

template <typename T>
concept Printable = requires(std::ostream& out, const T& value) {
  out << value;
};

TEST(Secret, CannotBePrintedByAccident) {
  EXPECT_FALSE(Printable<Secret>);
  EXPECT_FALSE((std::is_convertible_v<Secret, std::string>));
  EXPECT_EQ(Secret("hf_abc").reveal(), "hf_abc");
}

}  // namespace
}  // namespace fvprefetch
