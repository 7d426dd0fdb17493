// Who may be asked, and who may see the token: redirects are followed here and nowhere else.
//
// Rules: 301, 302, 303, 307, 308 with a Location are followed, at most 10 times, resolved by RFC
// 3986; the credential travels to the origins that it is bound to and to no other; from https
// never to http. Cookies that a redirect sets are sent on in its own chain, where their server
// allows it, and are forgotten at its end. Sinks see the last response only. A redirect that cannot
// be followed is a completion with failure kProtocol.
#pragma once

#include <memory>

#include "transfer/transport.h"

namespace fvprefetch {

/// A Transport on top of `inner` (not owned) that follows redirects.
[[nodiscard]] std::unique_ptr<Transport> follow_redirects(Transport& inner);

}  // namespace fvprefetch
