#include "report.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/posix.h"
#include "base/try.h"

namespace fvprefetch::contending {
namespace {

int width(const Column& column) {
  return std::max(8, static_cast<int>(std::strlen(column.title)) + 1);
}

std::string csv(const Run& run) {
  std::ostringstream out;
  out << "file_system,nodes,ranks,primitive";
  for (const Column& column : columns()) out << ',' << column.name;
  out << '\n';
  for (const Row& row : run.rows) {
    out << run.place.file_system << ',' << run.nodes << ',' << row.ranks << ',' << row.primitive;
    for (const Column& column : columns()) {
      out << ',';
      const auto found = row.figures.find(column.name);
      if (found != row.figures.end()) out << found->second;
    }
    out << '\n';
  }
  return out.str();
}

std::string json_text(const Run& run) {
  nlohmann::json rows = nlohmann::json::array();
  for (const Row& row : run.rows) {
    rows.push_back({{"ranks", row.ranks},
                    {"primitive", row.primitive},
                    {"figures", row.figures},
                    {"each", row.each},
                    {"remarks", row.remarks}});
  }
  const nlohmann::json all = {{"version", 1},
                              {"begun", run.begun},
                              {"seconds", run.seconds},
                              {"file_system", run.place.file_system},
                              {"mount_options", run.place.options},
                              {"machine",
                               {{"processor", run.place.processor},
                                {"cores", run.place.cores},
                                {"kernel", run.place.kernel}}},
                              {"mpi_ranks", run.mpi_ranks},
                              {"nodes", run.nodes},
                              {"acquisitions", run.acquisitions},
                              {"hold_us", run.hold_us},
                              {"repeats", run.repeats},
                              {"remarks", run.remarks},
                              {"rows", rows}};
  return all.dump(1) + "\n";
}

}  // namespace

void print_head(const Run& run) {
  std::printf("%s (%s)\n%s, %d cores, Linux %s; %d MPI ranks on %d nodes\n",
              run.place.file_system.c_str(), run.place.options.c_str(), run.place.processor.c_str(),
              run.place.cores, run.place.kernel.c_str(), run.mpi_ranks, run.nodes);
  std::printf("load: each contender %d times, %lld us long; hand-off in ms\n\n%5s %-13s",
              run.acquisitions, static_cast<long long>(run.hold_us), "N", "");
  for (const Column& column : columns()) {
    if (*column.title != '\0') std::printf("%*s", width(column), column.title);
  }
  std::printf("\n");
  std::fflush(stdout);
}

void print_row(const Row& row) {
  std::printf("%5d %-13s", row.ranks, row.primitive.c_str());
  for (const Column& column : columns()) {
    if (*column.title == '\0') continue;
    const auto found = row.figures.find(column.name);
    if (found == row.figures.end()) {
      std::printf("%*s", width(column), "-");
    } else {
      std::printf("%*.*f", width(column), column.digits, found->second);
    }
  }
  std::printf("\n");
  for (const std::string& remark : row.remarks) std::printf("      %s\n", remark.c_str());
  std::fflush(stdout);
}

Status write_files(const Run& run, const std::string& base) {
  const std::string tag = "." + posix::random_tag();
  FVP_CHECK_OK(posix::replace_text(base + tag, base + ".csv", csv(run)));
  return posix::replace_text(base + tag, base + ".json", json_text(run));
}

}  // namespace fvprefetch::contending
