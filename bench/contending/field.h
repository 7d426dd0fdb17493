// A task on all contenders of all ranks at once, and what they answered, on rank 0's clock.
//
// Contenders are processes of their own, started by the ranks: as many on each as N asks for, so
// that 64 of them need no 64 MPI ranks (which on two cores would be busy with MPI). Contender i
// belongs to the rank in slot i mod P; slots go round the nodes, so that two contenders are on two
// nodes.
#pragma once

#include <mpi.h>

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cluster/collective.h"
#include "common_clock.h"
#include "crew.h"
#include "figures.h"

namespace fvprefetch::contending {

struct Caps {
  std::int64_t end = 0;           ///< of the whole run, on rank 0's clock
  std::int64_t acquisitions = 0;  ///< in the whole run
};

struct Task {
  std::string verb;  ///< "cold", "turns"
  std::string primitive;
  int count = 1;          ///< turns: of each
  std::int64_t hold = 0;  ///< turns: nanoseconds
  /// turns: contender 0 has it for so long before the others want it.
  std::int64_t first_holds = 0;
  std::int64_t limit = 0;  ///< how long they may take
  bool warm = false;       ///< the file is there
  bool count_operations = false;
};

struct Outcome {
  bool done = false;  ///< else it was not begun: a cap was reached
  std::int64_t start = 0;
  std::int64_t clock_error = 0;
  std::vector<Turn> turns;
  std::vector<std::int64_t> had;  ///< when each had the path
  std::int64_t published = 0;
  int publications = 0;
  std::map<int, double> cpu_s;  ///< by contender
  std::vector<std::string> errors;
  std::map<std::string, int> calls;  ///< by name, of all
  std::map<int, int> calls_of;       ///< by rank; of a collective case
  std::optional<long> counted;       ///< turns: what <folder>/count says
};

class Field {
 public:
  /// Collective. `scratch` is rank 0's; the others are told.
  Field(Collective& ranks, MPI_Comm comm, std::string scratch, Caps caps);

  [[nodiscard]] Collective& ranks() { return ranks_; }
  [[nodiscard]] bool first() const { return ranks_.rank() == 0; }
  [[nodiscard]] const std::string& scratch() const { return scratch_; }
  [[nodiscard]] int slot() const { return slot_; }
  /// How many of `n` contenders are this rank's.
  [[nodiscard]] int share_of(int n) const;
  /// Collective: the clocks of the nodes drift.
  void set_clock();

  /// Collective: runs `task` with this rank's part of the contenders.
  [[nodiscard]] Result<Outcome> run(Crew& crew, const Task& task, std::int64_t case_end);

  /// What a rank itself is to do, at `start` on its own clock; its answers are as a contender's.
  using Part =
      std::function<std::vector<std::string>(const std::string& folder, std::int64_t start)>;
  /// Collective: the same with the ranks themselves; `part` is empty where a rank takes no part.
  [[nodiscard]] Result<Outcome> run(const Part& part, const Task& task, std::int64_t case_end);

 private:
  struct Begin {
    std::int64_t start = 0;  ///< rank 0's clock
    std::string folder;
  };
  /// Collective: nullopt when a cap is reached.
  [[nodiscard]] Result<std::optional<Begin>> begin(const Task& task, std::int64_t case_end);
  /// Collective: everybody's lines.
  [[nodiscard]] Result<Outcome> gather(const Begin& begin, const std::vector<std::string>& lines,
                                       const Task& task);
  [[nodiscard]] std::string on_first_clock(int who, const std::string& line) const;

  Collective& ranks_;
  MPI_Comm comm_;
  std::string scratch_;
  Caps caps_;
  Offset offset_;
  std::int64_t clock_error_ = 0;  ///< the largest of all ranks
  int slot_ = 0;
  int number_ = 0;  ///< of the task
  std::int64_t acquisitions_ = 0;
};

}  // namespace fvprefetch::contending
