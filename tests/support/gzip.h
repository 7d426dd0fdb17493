// gzip in one go, for bodies and archives that fit in memory.
#pragma once

#include <string>

namespace fvprefetch::testhub {

std::string gzip(std::string plain);

}  // namespace fvprefetch::testhub
