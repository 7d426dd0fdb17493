// The private file of a download: which of its bytes are there, its journal, its digest, and how
// the unfinished one of another process becomes ours.
//
// Without a journal's name it lives and dies with the object. With one it stays when the download
// ends early and could go on (journal.h says what that takes), and the next one adopts it:
//   its owner let go of it, or is gone for certain    in place: renamed to our private name, which
//                                                     one of several adopters wins
//   its owner's kernel is not ours to ask             copied into a new inode: a stalled writer may
//                                                     come back and write into the old one
//   its owner lives on this host                      left alone
// Whoever may write in the folder can have put anything at those names: what is no regular file, or
// has another name besides, is left alone, and so is what we may not write to, but for a copy.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/digest.h"
#include "base/posix.h"
#include "fvprefetch/error.h"
#include "fvprefetch/plan.h"
#include "transfer/engine.h"
#include "transfer/front_digest.h"
#include "transfer/journal.h"
#include "transfer/transport.h"
#include "transfer/worker.h"

namespace fvprefetch {

/// An ETag that promises the same bytes; "W/..." promises only the same meaning.
[[nodiscard]] bool is_strong(std::string_view etag);

class Partial {
 public:
  /// How much a killed process may lose, and where writing the journal takes long what arrives in
  /// twenty times as long, at most in a tenth of a second.
  static constexpr std::uint64_t kBlock = 1U << 20U;
  /// How much a power failure may.
  static constexpr std::uint64_t kDurableBlock = 64U << 20U;

  struct Workers {
    Worker& beside;  ///< for what may take long
    Worker& here;    ///< for what is quicker than asking another thread
  };

  /// Nothing is made yet. `clock` and the workers must outlive it.
  Partial(PartialPlace place, const FileSpec& spec, Workers workers, Clock& clock);
  ~Partial();  ///< keeps or removes what is there
  Partial(const Partial&) = delete;
  Partial& operator=(const Partial&) = delete;

  // --- adoption, before the first byte ---

  /// Takes over the best of `others`, in place where that is safe. `address` is the URL that would
  /// be asked first. What has to be copied is not yet there afterwards.
  void adopt(const std::vector<PartialPlace>& others, const std::string& address);
  /// A copy is not complete: copy_some() until it is.
  [[nodiscard]] bool copying() const { return copy_ != nullptr; }
  void copy_some();
  /// What the user should know of it, once; mostly empty.
  [[nodiscard]] std::string take_note() { return std::exchange(note_, {}); }
  /// Bytes that another download had brought, and that still count.
  [[nodiscard]] std::uint64_t adopted() const { return adopted_; }
  /// A journal of ours lies there.
  [[nodiscard]] bool recorded() const { return recorded_; }

  // --- writing ---

  /// Makes the file, or empties it. The bytes to come are those of this answer.
  [[nodiscard]] Status restart(const std::string& address, std::string etag,
                               std::optional<std::uint64_t> total);
  [[nodiscard]] Status write(std::uint64_t offset, const BodyPiece& piece);
  /// A later answer told how long the file is.
  void set_total(std::uint64_t total) { journal_.total = total; }
  /// What lies there is of no use any more.
  void forget();

  /// Its bytes are those of an answer, or another's are ours: restart() or adopt(), and no
  /// forget().
  [[nodiscard]] bool begun() const { return begun_; }
  [[nodiscard]] const RangeSet& done() const { return journal_.done; }
  [[nodiscard]] const std::string& etag() const { return journal_.etag; }
  [[nodiscard]] std::optional<std::uint64_t> total() const { return journal_.total; }
  /// The bytes came from this URL.
  [[nodiscard]] bool came_from(const std::string& address) const;
  /// What is there may be gone on with: a digest will decide, or the server's strong validator.
  [[nodiscard]] bool resumable() const;
  /// The first bytes, up to `size`.
  [[nodiscard]] std::string beginning(std::size_t size) const;

  // --- the end ---

  /// All is there and `size` bytes are all: the hex digest once it is made (nullopt before).
  [[nodiscard]] std::optional<Result<std::string>> digest(std::uint64_t size);
  /// The file goes to the caller, who publishes it. The journal stays until then, so that a kill
  /// meanwhile costs nothing; the caller removes it.
  [[nodiscard]] posix::Fd hand_out();
  /// Nobody shall go on with this.
  void discard() { keep_ = false; }

 private:
  struct Copy;
  struct Syncing;

  [[nodiscard]] bool takes(const Journal& other, const std::string& address) const;
  bool take_in_place(const PartialPlace& other, const Journal& journal, posix::Opened opened);
  bool begin_copy(const PartialPlace& other, const Journal& journal);
  void set_adopted(RangeSet ranges, const Journal& journal);
  void follow_front();
  void note_durable();
  [[nodiscard]] Status make_durable();
  [[nodiscard]] bool record();
  [[nodiscard]] bool has_journal() const { return !place_.journal.empty(); }

  PartialPlace place_;
  Digest::Kind kind_;
  Workers workers_;
  Clock& clock_;
  Journal journal_;  // what would be written now
  posix::Fd fd_;
  bool keep_ = true;
  bool begun_ = false;
  std::uint64_t adopted_ = 0;
  std::string note_;
  std::unique_ptr<Copy> copy_;

  std::uint64_t unrecorded_ = 0;
  bool recorded_ = false;  // a journal of ours lies there
  Clock::TimePoint next_record_{};
  std::uint64_t undurable_ = 0;
  std::shared_ptr<Syncing> syncing_;
  std::unique_ptr<FrontDigest> digest_;
  // Of a small file whose bytes come in order: made of them, and not read again.
  std::optional<Hasher> passing_;
  std::uint64_t passed_ = 0;
};

}  // namespace fvprefetch
