#include "cli/version.h"

#ifndef FVPREFETCH_VERSION
#error "the build tells the program's version"
#endif

namespace fvprefetch::cli {

const char* program_version() {
  return FVPREFETCH_VERSION;
}

}  // namespace fvprefetch::cli
