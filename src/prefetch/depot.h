// Where a node unloads its cargo: which of its files are there already, and how the others become
// visible. The same stores, and so the same names, rules and receipts, as those of a download; no
// lock, since every file is published by rename and two jobs that unload the same thing on one node
// are rare.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/digest.h"
#include "base/posix.h"
#include "cache/lock.h"
#include "fvprefetch/error.h"
#include "fvprefetch/prefetch.h"
#include "prefetch/cargo.h"
#include "prefetch/target.h"

namespace fvprefetch {

/// Files are numbered alike in the depots of all nodes: equal bytes that several entries want are
/// one file. One thread at a time.
class Depot {
 public:
  /// `cargo` must outlive the depot. Nothing is looked at.
  explicit Depot(const Cargo& cargo);
  Depot(const Depot&) = delete;
  Depot& operator=(const Depot&) = delete;
  ~Depot();

  /// To be called first. kInternal when an entry is something else here than it was for the sender.
  [[nodiscard]] Status open();

  /// Keeps other processes of this node from unloading into the same caches at the same time, for
  /// as long as it is held; for a process that unloads for itself alone, since one that others wait
  /// for must not wait for others. Waits for the one that does, 30 minutes when it does not get on.
  /// Tells `observer`, which may be nullptr, on whom. nullptr: there are no locks there; published
  /// by rename it is right all the same.
  [[nodiscard]] Result<std::unique_ptr<HeldLock>> keep_others_out(const StopCheck& must_stop,
                                                                  Observer* observer);

  struct File {
    std::size_t entry = 0;  ///< the first that wants it, as a number in Cargo::entries
    FileSpec spec;
    std::string from;  ///< the sender's
  };
  [[nodiscard]] const std::vector<File>& files() const;
  /// Those of an entry of Cargo::entries.
  [[nodiscard]] const std::vector<std::size_t>& files_of(std::size_t entry) const;
  /// By file: whether this node needs it. A file of an entry that is complete, by its receipt or
  /// size, is not needed. Reads only.
  [[nodiscard]] Result<std::vector<bool>> missing();
  /// kNoSpace when that many bytes do not fit.
  [[nodiscard]] Status has_room_for(const std::vector<bool>& wanted) const;

  /// A private file beside the final one.
  struct Private {
    posix::Fd fd;
    std::string path;
  };
  [[nodiscard]] Result<Private> create(std::size_t file);

  /// A private file that has all its bytes.
  struct Whole {
    std::size_t file = 0;
    Private written;
    std::uint64_t size = 0;  ///< bytes
    std::string sha256;      ///< of the bytes, which were checked; empty when git's digest was
  };
  struct Published {
    std::vector<std::size_t> files;  ///< for good
    std::uint64_t bytes = 0;         ///< of these
    Status status;                   ///< a failure: why the others are not, and were removed
  };
  /// All of them are on the disk before the first has its name; a folder is synced once, not once
  /// for each of its files.
  [[nodiscard]] Published publish(std::vector<Whole> files);
  /// All files of the entry are there: refs, tree, receipt, and what else makes it complete.
  [[nodiscard]] Status complete(std::size_t entry);
  /// What the entry resolves to here.
  [[nodiscard]] const std::string& path(std::size_t entry) const;

 private:
  struct Item;
  struct Wanted;
  Status add(std::size_t entry);
  Status add_tree(std::size_t entry, UrlSource& url);
  Status complete_tree(Wanted& wanted, const CargoEntry& entry);
  Status ready(Whole& whole, std::vector<posix::Unpublished>& files);

  const Cargo& cargo_;
  Options options_;
  std::unique_ptr<Session> session_;
  std::vector<File> files_;
  std::vector<Item> items_;                      // by file
  std::map<std::string, std::size_t> by_path_;   // final path -> file
  std::vector<Wanted> entries_;                  // by entry
  std::set<std::string> prepared_;               // folders that are known to be there
  const std::string tag_ = posix::random_tag();  // of the private files
};

}  // namespace fvprefetch
