#include "transfer/partial.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "base/digest.h"
#include "base/try.h"

namespace fvprefetch {
namespace {

// A file of at most this is hashed in less time than another thread takes to wake up.
constexpr std::uint64_t kSmall = 512U << 10U;
// A journal each 1 MiB would be hundreds a second on a fast link, and each costs a metadata server
// a rename: where that takes long, it is done less often. This share of the time at most is spent
// on it, up to the point where too much would be lost.
constexpr int kRecordingShare = 20;
constexpr std::chrono::milliseconds kLongestBetweenRecords(100);
// Of a copy, between two looks at the network.
constexpr std::uint64_t kCopyPiece = 16U << 20U;
constexpr std::uint64_t kLargestJournal = 1U << 20U;
// Of a mode: the group, and everybody.
constexpr std::uint32_t kOthersMayRead = 044;

std::string digest_text(const std::optional<Digest>& digest) {
  if (!digest) return {};
  return (digest->kind == Digest::Kind::kSha256 ? "sha256:" : "git-sha1:") + digest->hex;
}

std::optional<Journal> read_journal(const std::string& path) {
  if (path.empty()) return std::nullopt;
  const auto text = posix::read_private(path, kLargestJournal);
  if (!text || !*text) return std::nullopt;
  return parse_journal(**text);
}

// The name of a journal that is being written. Beside the journal and not of its name: what pruning
// takes for a journal is one.
std::string on_its_way(const std::string& journal) {
  return journal + ".tmp";
}

// A download that was left has one name. One that has more was linked there, and is somebody's file
// of another name, which is neither to be written to nor to be told.
bool is_plausible(const posix::FileInfo& info) {
  return info.links == 1;
}

// Of one file before and after a rename: some FUSE file systems number inodes by path.
bool is_same(const posix::FileInfo& a, const posix::FileInfo& b) {
  const bool one_inode = a.inode == b.inode && a.device == b.device;
  return a.regular && (one_inode || (a.size == b.size && a.mtime_ns == b.mtime_ns));
}

void remove_both(const PartialPlace& place) {
  // Best effort: pruning finds an orphan later. The data first: a journal alone harms nobody.
  (void)posix::remove_file(place.data);
  if (!place.journal.empty()) (void)posix::remove_file(place.journal);
}

}  // namespace

bool is_strong(std::string_view etag) {
  return etag.size() >= 2 && etag.front() == '"' && etag.back() == '"';
}

// A copy of another's data on its way into our file.
struct Partial::Copy {
  posix::Fd from;
  std::string path;
  RangeSet wanted;
  std::vector<Range> left;  // in order from the back
  Journal journal;
};

// What the worker syncs, and whether it has.
struct Partial::Syncing {
  posix::Fd fd;
  std::string path;
  RangeSet ranges;
  std::atomic<bool> running{false};
  Status status;  // of the worker while `running`

  [[nodiscard]] bool done() const { return !running && status; }
  // The kernel tells it once, to whoever asks first, and may have dropped the bytes.
  [[nodiscard]] bool failed() const { return !running && !status; }
  // The kernel tells of a failure only one of those who sync at a time, so two must not.
  void wait() const { running.wait(true); }
};

Partial::Partial(PartialPlace place, const FileSpec& spec, Workers workers, Clock& clock)
    : place_(std::move(place)),
      kind_(spec.digest ? spec.digest->kind : Digest::Kind::kSha256),
      workers_(workers),
      clock_(clock) {
  journal_.size = spec.size;
  journal_.total = spec.size;
  journal_.digest = digest_text(spec.digest);
  if (has_journal()) {
    journal_.owner = this_process();
    journal_.boot = journal_.owner->boot;
  }
}

Partial::~Partial() {
  if (!fd_) return;
  copy_.reset();
  if (keep_ && has_journal() && resumable() && journal_.done.bytes() > 0) {
    // Another node goes by what is synced, and a network file system's client sends now what it
    // still has. At most kDurableBlock and what came since the last sync was done.
    if (syncing_) syncing_->wait();
    note_durable();
    const bool synced = posix::sync_data(fd_, place_.data) && !(syncing_ && syncing_->failed());
    if (synced) {
      journal_.durable = journal_.done;
    } else {
      journal_.done = journal_.durable;  // the rest may not be what was written
    }
    const Status closed = fd_.close(place_.data);
    if (closed && journal_.done.bytes() > 0) {
      journal_.owner.reset();
      // On a full disk there may be no room for it. What an earlier one of ours tells still holds.
      if (record() || (recorded_ && synced)) return;
    }
  }
  remove_both(place_);
}

// --- adoption ------------------------------------------------------------------------------------

bool Partial::takes(const Journal& other, const std::string& address) const {
  if (other.size && journal_.size && other.size != journal_.size) return false;
  if (other.total && journal_.total && other.total != journal_.total) return false;
  if (!journal_.digest.empty()) return other.digest == journal_.digest;
  return is_strong(other.etag) && other.address == sha256_hex(address);
}

void Partial::adopt(const std::vector<PartialPlace>& others, const std::string& address) {
  struct Candidate {
    const PartialPlace* place;
    Journal journal;
    std::uint64_t bytes;
  };
  if (!has_journal()) return;
  const std::string& here = journal_.boot;
  std::vector<Candidate> candidates;
  for (const PartialPlace& place : others) {
    auto journal = read_journal(place.journal);
    if (!journal || !takes(*journal, address)) continue;
    const std::uint64_t bytes = journal->reliable(here).bytes();
    if (bytes > 0) candidates.push_back({&place, *std::move(journal), bytes});
  }
  std::stable_sort(candidates.begin(), candidates.end(),
                   [](const Candidate& a, const Candidate& b) { return a.bytes > b.bytes; });
  for (const Candidate& candidate : candidates) {
    const auto& owner = candidate.journal.owner;
    const Liveness owner_is = owner ? liveness(*owner) : Liveness::kGone;
    if (owner_is == Liveness::kAlive) continue;
    if (owner_is == Liveness::kGone) {
      // Looked at before it is touched: what we cannot go on with is left to whoever can.
      auto opened = posix::open_private(candidate.place->data);
      if (opened) {
        if (take_in_place(*candidate.place, candidate.journal, *std::move(opened))) return;
        continue;
      }
    }
    if (begin_copy(*candidate.place, candidate.journal)) return;
  }
}

bool Partial::take_in_place(const PartialPlace& other, const Journal& journal,
                            posix::Opened opened) {
  if (!is_plausible(opened.info)) return false;
  // Our journal before our data, the other's journal last: killed between any two of these steps we
  // leave one journal that has its data, and at worst one more that has none.
  Journal ours = journal_;
  set_adopted(journal.reliable(journal_.boot), journal);
  const auto not_ours = [&] {
    (void)posix::remove_file(place_.journal);
    journal_ = std::move(ours);
    adopted_ = 0;
    begun_ = false;
    recorded_ = false;
    return false;
  };
  // A disk that has no room for a journal has none for the rest of the file: the next run may.
  if (!record()) return not_ours();
  if (!posix::rename_private(other.data, place_.data)) return not_ours();  // another was faster
  (void)posix::remove_file(other.journal);  // best effort: without its data nobody heeds it
  (void)posix::remove_file(on_its_way(other.journal));  // its owner is gone: it never will be
  const auto moved = posix::lstat(place_.data);
  if (!moved || !*moved || !is_same(**moved, opened.info)) {
    // Put there in between, by whoever may write here. It has a name of ours now.
    (void)posix::remove_file(place_.data);
    return not_ours();
  }
  fd_ = std::move(opened.fd);
  // A journal that says more than there is was not written by us, or its data was cut by somebody.
  journal_.done.clip(opened.info.size);
  journal_.durable.clip(opened.info.size);
  adopted_ = journal_.done.bytes();
  follow_front();
  return true;
}

bool Partial::begin_copy(const PartialPlace& other, const Journal& journal) {
  auto opened = posix::open_private_to_read(other.data);
  if (!opened || !is_plausible(opened->info)) return false;
  const posix::FileInfo& info = opened->info;
  auto copy = std::make_unique<Copy>();
  copy->wanted = journal.reliable(journal_.boot);
  copy->wanted.clip(info.size);
  if (copy->wanted.bytes() == 0) return false;
  auto made = posix::create_private(place_.data);
  if (!made) return false;
  // Nobody may read the copy who may not read what it is of.
  const auto ours = posix::stat(*made, place_.data);
  if (!ours || (ours->mode & ~info.mode & kOthersMayRead) != 0) {
    (void)posix::remove_file(place_.data);
    return false;
  }
  fd_ = *std::move(made);
  if (posix::clone(opened->fd, fd_)) {
    set_adopted(copy->wanted, journal);
    journal_.durable.clear();
    (void)record();
    follow_front();
    return true;
  }
  // The whole of the file has to find a place beside the old one.
  const std::uint64_t needed = std::max(copy->wanted.bytes(), journal_.total.value_or(0));
  const auto free = posix::free_bytes(posix::parent(place_.data));
  if (free && *free < needed) {
    note_ = "an unfinished download of " + std::to_string(copy->wanted.bytes()) +
            " bytes is not gone on with: there is no space for a copy of it";
    return true;  // the smaller ones would find none either, or not be worth it
  }
  copy->from = std::move(opened->fd);
  copy->path = other.data;
  copy->left.assign(copy->wanted.ranges().rbegin(), copy->wanted.ranges().rend());
  copy->journal = journal;
  copy_ = std::move(copy);
  return true;
}

void Partial::copy_some() {
  Range& next = copy_->left.back();
  const std::uint64_t size = std::min(next.size(), kCopyPiece);
  if (const Status status = posix::copy(copy_->from, fd_, next.begin, size, place_.data); !status) {
    note_ = "an unfinished download is not gone on with: " + status.error().message;
    copy_.reset();
    (void)posix::truncate(fd_, 0, place_.data);  // best effort: restart() does it again
    return;
  }
  next.begin += size;
  if (next.size() == 0) copy_->left.pop_back();
  if (!copy_->left.empty()) return;
  const std::unique_ptr<Copy> copied = std::move(copy_);
  set_adopted(copied->wanted, copied->journal);
  journal_.durable.clear();  // the copy is not
  (void)record();
  follow_front();
}

void Partial::set_adopted(RangeSet ranges, const Journal& journal) {
  journal_.address = journal.address;
  journal_.etag = journal.etag;
  if (!journal_.total) journal_.total = journal.total;
  journal_.durable = journal.durable;
  journal_.done = std::move(ranges);
  adopted_ = journal_.done.bytes();
  begun_ = true;
}

// --- writing -------------------------------------------------------------------------------------

Status Partial::restart(const std::string& address, std::string etag,
                        std::optional<std::uint64_t> total) {
  forget();
  if (!fd_) {
    auto made = posix::create_private(place_.data);
    if (!made) return tl::unexpected(std::move(made).error());
    fd_ = *std::move(made);
  } else if (auto status = posix::truncate(fd_, 0, place_.data); !status) {
    return status;
  }
  journal_.address = has_journal() ? sha256_hex(address) : address;
  journal_.etag = std::move(etag);
  journal_.total = total;
  begun_ = true;
  if (total && *total <= kSmall) passing_.emplace(kind_, *total);
  return {};
}

Status Partial::write(std::uint64_t offset, const BodyPiece& piece) {
  const std::span<const std::byte> data = piece.data;
  FVP_CHECK_OK(posix::write_at(fd_, offset, data, place_.data));
  const bool at_front = offset == journal_.done.front();
  journal_.done.add({offset, offset + data.size()});
  if (passing_ && offset == passed_) {
    passing_->update(data);
    passed_ += data.size();
  }
  if (digest_ && at_front) digest_->take(offset, piece);
  follow_front();
  if (!has_journal() || !resumable()) return {};
  unrecorded_ += data.size();
  undurable_ += data.size();
  if (undurable_ >= kDurableBlock) FVP_CHECK_OK(make_durable());
  if (unrecorded_ >= kBlock && clock_.now() >= next_record_) (void)record();
  return {};
}

void Partial::forget() {
  digest_.reset();
  passing_.reset();
  passed_ = 0;
  if (syncing_) syncing_->wait();
  syncing_.reset();
  journal_.done.clear();
  journal_.durable.clear();
  adopted_ = 0;
  begun_ = false;
  undurable_ = 0;
  // What is told of the bytes that are gone would be believed by the next process.
  if (std::exchange(recorded_, false)) (void)posix::remove_file(place_.journal);
  unrecorded_ = 0;
  next_record_ = {};
}

bool Partial::came_from(const std::string& address) const {
  return journal_.address == (has_journal() ? sha256_hex(address) : address);
}

bool Partial::resumable() const {
  return !journal_.digest.empty() || is_strong(journal_.etag);
}

std::string Partial::beginning(std::size_t size) const {
  std::string text(std::min<std::uint64_t>(size, journal_.done.front()), '\0');
  const auto bytes = std::as_writable_bytes(std::span(text.data(), text.size()));
  const auto length = posix::read_at(fd_, 0, bytes, place_.data);
  text.resize(length ? *length : 0);  // only looked at: the digest finds what cannot be read
  return text;
}

void Partial::follow_front() {
  const std::uint64_t front = journal_.done.front();
  if (!digest_) {
    // Git hashes the length before the first byte, so somebody has to tell it.
    const bool can_begin = kind_ == Digest::Kind::kSha256 || journal_.total;
    if (front <= kSmall || !can_begin) return;
    auto fd = posix::duplicate(fd_, place_.data);
    if (!fd) return;  // digest() tries again, and tells
    digest_ = std::make_unique<FrontDigest>(workers_.beside, *std::move(fd), place_.data, kind_,
                                            journal_.total.value_or(0));
  }
  digest_->advance(front);
}

void Partial::note_durable() {
  if (syncing_ && syncing_->done()) journal_.durable = syncing_->ranges;
}

Status Partial::make_durable() {
  if (syncing_ && syncing_->running) return {};  // the disk is slower than the network: next time
  if (syncing_ && syncing_->failed()) return syncing_->status;
  note_durable();
  undurable_ = 0;
  if (!syncing_) {
    auto fd = posix::duplicate(fd_, place_.data);
    if (!fd) return {};  // then nothing is durable, which is safe
    syncing_ = std::make_shared<Syncing>();
    syncing_->fd = *std::move(fd);
    syncing_->path = place_.data;
  }
  syncing_->ranges = journal_.done;
  syncing_->running = true;
  workers_.beside.post([state = syncing_] {
    state->status = posix::sync_data(state->fd, state->path);
    state->running = false;
    state->running.notify_all();
  });
  return {};
}

// Best effort: where it cannot be written the download cannot be gone on with, that is all.
bool Partial::record() {
  note_durable();
  const Clock::TimePoint begun = clock_.now();
  const bool ok = posix::replace_text(on_its_way(place_.journal), place_.journal, to_text(journal_))
                      .has_value();
  const Clock::TimePoint now = clock_.now();
  recorded_ = recorded_ || ok;
  unrecorded_ = 0;
  next_record_ = now + std::min<Clock::TimePoint::duration>(kRecordingShare * (now - begun),
                                                            kLongestBetweenRecords);
  return ok;
}

// --- the end -------------------------------------------------------------------------------------

std::optional<Result<std::string>> Partial::digest(std::uint64_t size) {
  if (syncing_ && syncing_->running) return std::nullopt;
  if (syncing_ && syncing_->failed()) {
    return Result<std::string>(tl::unexpected(syncing_->status.error()));
  }
  if (passing_ && passed_ == size && journal_.total == size) return passing_->finish();
  if (!digest_) {
    auto fd = posix::duplicate(fd_, place_.data);
    if (!fd) return Result<std::string>(tl::unexpected(std::move(fd).error()));
    Worker& worker = size <= kSmall ? workers_.here : workers_.beside;
    digest_ = std::make_unique<FrontDigest>(worker, *std::move(fd), place_.data, kind_, size);
  }
  auto hex = digest_->finish(size);
  // Here and now where it is done at once: finish() has posted, and the task has run.
  if (!hex && size <= kSmall) hex = digest_->finish(size);
  return hex;
}

posix::Fd Partial::hand_out() {
  if (has_journal() && resumable() && journal_.done.bytes() >= kBlock) (void)record();
  return std::move(fd_);
}

}  // namespace fvprefetch
