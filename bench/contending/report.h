// The results as a table, CSV and JSON.
#pragma once

#include <string>
#include <vector>

#include "figures.h"
#include "fvprefetch/error.h"
#include "place.h"

namespace fvprefetch::contending {

struct Run {
  Place place;
  int mpi_ranks = 0;
  int nodes = 0;
  int acquisitions = 0;
  std::int64_t hold_us = 0;
  int repeats = 0;
  std::string begun;  ///< RFC 3339
  double seconds = 0;
  std::vector<std::string> remarks;
  std::vector<Row> rows;
};

void print_head(const Run& run);
void print_row(const Row& row);
/// <base>.csv and <base>.json, each replaced as a whole.
[[nodiscard]] Status write_files(const Run& run, const std::string& base);

}  // namespace fvprefetch::contending
