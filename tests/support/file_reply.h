// A file as an HTTP answer: conditions, ranges, length, type. Used for small Hub files, for the CDN
// and for plain URLs, which differ only in their etags and extra headers.
#pragma once

#include "message.h"

#include <memory>
#include <string>

namespace fvprefetch::testhub {

enum class Ranges { kHonoured, kIgnored };

/// 200, 206, 304 or 416. `etag` comes with its quotes. A list of ranges is answered as 200 with the
/// whole file, which RFC 9110 allows.
Reply file_reply(const Request& request, std::shared_ptr<const OpenFile> file,
                 const std::string& etag, Ranges ranges);

/// RFC 1123 date of a file's time.
std::string http_date(std::int64_t modified_ns);

/// By suffix: what a static file server would say.
std::string content_type_of(const std::string& path);

/// True when an If-None-Match list holds this etag (weak comparison) or is "*".
bool etag_listed(const std::string& if_none_match, const std::string& etag);

}  // namespace fvprefetch::testhub
