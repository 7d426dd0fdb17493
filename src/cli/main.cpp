// The last border: nothing gets past it but an exit code.
#include <cstdio>
#include <exception>
#include <new>
#include <string>
#include <vector>

#include "cli/commands.h"
#include "fvprefetch/error.h"

int main(int argc, char** argv) {
  using fvprefetch::ErrorCode;
  using fvprefetch::exit_code;
  try {
    return fvprefetch::cli::run(std::vector<std::string>(argv + (argc > 0 ? 1 : 0), argv + argc));
  } catch (const std::bad_alloc&) {
    std::fputs("fvprefetch: error: out of memory\nhint: raise the limit of memory (`ulimit -v`)\n",
               stderr);
    return exit_code(ErrorCode::kNoSpace);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "fvprefetch: error: unexpected exception: %s\n", error.what());
  } catch (...) {
    std::fputs("fvprefetch: error: unexpected exception of unknown type\n", stderr);
  }
  return exit_code(ErrorCode::kInternal);
}
