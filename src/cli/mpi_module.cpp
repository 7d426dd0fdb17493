#include "cli/mpi_module.h"

#include <dlfcn.h>

#include <vector>

#include "base/posix.h"
#include "base/try.h"

#ifndef FVPREFETCH_LIBDIR  // the installation's, relative to its prefix ("lib", "lib64", ...)
#define FVPREFETCH_LIBDIR "lib"
#endif

namespace fvprefetch::cli {
namespace {

constexpr const char* kFileName = "fvprefetch-mpi.so";

std::vector<std::string> candidates(const std::string& directory) {
  const std::string above = directory + "/..";
  const std::string below = std::string("/fvprefetch/") + kFileName;
  std::vector<std::string> paths{directory + "/" + kFileName,
                                 above + "/" + FVPREFETCH_LIBDIR + below};
  const auto names = posix::list(above);
  if (!names) return paths;  // not readable: the two usual places must do
  for (const std::string& name : *names) {
    if (name.starts_with("lib") && name != FVPREFETCH_LIBDIR) {
      paths.push_back(above + "/" + name + below);
    }
  }
  return paths;
}

std::string load_error() {
  const char* const text = ::dlerror();
  return text != nullptr ? text : "unknown reason";
}

}  // namespace

std::string executable_directory() {
  const std::string path = posix::read_link("/proc/self/exe").value_or("");
  return path.substr(0, path.rfind('/') == std::string::npos ? 0 : path.rfind('/'));
}

Result<std::string> find_mpi_module(const EnvironmentLookup& env, const std::string& directory) {
  if (const auto named = env ? env("FVPREFETCH_MPI_MODULE") : std::nullopt;
      named && !named->empty()) {
    // dlopen() searches the library path for a name without a slash.
    std::string path = named->find('/') == std::string::npos ? "./" + *named : *named;
    if (posix::exists(path)) return path;
    return fail(ErrorCode::kLauncher,
                "FVPREFETCH_MPI_MODULE names " + *named + ", which is not there",
                "unset it, or give the path of " + std::string(kFileName));
  }
  if (!directory.empty()) {
    for (std::string& path : candidates(directory)) {
      if (posix::exists(path)) return std::move(path);
    }
  }
  return fail(ErrorCode::kLauncher,
              std::string("there is no ") + kFileName + " beside " +
                  (directory.empty() ? "the command" : directory + "/fvprefetch") +
                  " or in ../" FVPREFETCH_LIBDIR "/fvprefetch",
              "install the MPI module, or name it in FVPREFETCH_MPI_MODULE");
}

Result<const MpiModule*> load_mpi_module(const std::string& path) {
  // RTLD_GLOBAL: Open MPI loads components of its own, which look for libmpi's symbols.
  void* const handle = ::dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (handle == nullptr) {
    return fail(ErrorCode::kLauncher, "the MPI module cannot be loaded: " + load_error(),
                "load the MPI that fvprefetch was built with (`module load ...`)");
  }
  void* const symbol = ::dlsym(handle, kMpiModuleSymbol);
  if (symbol == nullptr) {
    return fail(ErrorCode::kLauncher, path + " is not fvprefetch's MPI module: " + load_error());
  }
  const MpiModule* const module = reinterpret_cast<MpiModuleEntry>(symbol)();
  if (module == nullptr || module->version != kMpiModuleVersion) {
    return fail(ErrorCode::kLauncher,
                path + " has version " +
                    (module == nullptr ? "none" : std::to_string(module->version)) +
                    ", this command needs " + std::to_string(kMpiModuleVersion),
                "install command and module of the same build");
  }
  return module;
}

}  // namespace fvprefetch::cli
