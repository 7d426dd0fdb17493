// The module as the command uses it: a program without MPI loads it, runs collectives, finalizes.
// One process per rank; the only test here that calls MPI_Init through the module.
#include "mpi/module.h"

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <string>

namespace fvprefetch {
namespace {

TEST(MpiModule, OpensTheWorldForAProgramThatKnowsNoMpi) {
  ASSERT_EQ(dlsym(RTLD_DEFAULT, "MPI_Init"), nullptr) << "this test must not be linked with MPI";
  void* const library = dlopen(FVP_TEST_MODULE, RTLD_NOW | RTLD_GLOBAL);
  ASSERT_NE(library, nullptr) << dlerror();
  const auto entry = reinterpret_cast<MpiModuleEntry>(dlsym(library, kMpiModuleSymbol));
  ASSERT_NE(entry, nullptr) << dlerror();
  const MpiModule* const module = entry();
  ASSERT_EQ(module->version, kMpiModuleVersion);
  // Nothing of ours besides: the program has the same code, and the two must not mix.
  EXPECT_EQ(dlsym(library, "_ZN10fvprefetch8describeERKNS_5ErrorE"), nullptr);
  EXPECT_EQ(
      dlsym(library,
            "_ZN10fvprefetch3mpi19make_mpi_collectiveEP19ompi_communicator_tRKNS0_10MpiOptionsE"),
      nullptr);

  {
    EXPECT_NE(module->library().find("MPI"), std::string::npos) << module->library();
    auto ranks = module->open("");
    ASSERT_TRUE(ranks) << ranks.error().message;
    EXPECT_EQ((*ranks)->size(), FVP_TEST_RANKS);
    const auto heard = (*ranks)->broadcast((*ranks)->rank() == 0 ? "hello" : "");
    EXPECT_TRUE(heard && *heard == "hello");
    EXPECT_TRUE((*ranks)->quiet_wait());
  }
  module->finalize();
}

}  // namespace
}  // namespace fvprefetch
