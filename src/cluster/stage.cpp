#include "cluster/stage.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "base/digest.h"
#include "base/posix.h"
#include "base/try.h"
#include "cluster/read_ahead.h"
#include "prefetch/depot.h"
#include "prefetch/error_json.h"
#include "prefetch/run.h"

namespace fvprefetch {
namespace {

using nlohmann::json;

// --- The stream ----------------------------------------------------------------------------------

enum class Kind : std::uint32_t {
  kData,  // bytes of the file, in order
  kEnd,   // the file is whole; its sha256, when the list has no digest of it
  kBad    // the file cannot be had; why
};

struct Header {
  std::uint32_t file = 0;
  Kind kind = Kind::kData;
  std::uint64_t length = 0;
};
static_assert(sizeof(Header) == 16);

// Rank 0's end: sends the files one after the other.
class Sender {
 public:
  /// `files`: numbers of those to send.
  Sender(const Depot* depot, std::vector<std::uint32_t> files)
      : depot_(depot), files_(std::move(files)), ahead_(as_they_lie(depot, files_)) {}

  std::size_t fill(std::span<std::byte> room) {
    room_ = room;
    used_ = 0;
    const std::size_t first = next_;
    while (next_ < files_.size() || open_) {
      if (room_.size() - used_ < kLeast) break;
      if (!open_ && next_ - first == kMostFilesInAFrame) break;
      const auto step = guard([&]() -> Status { return open_ ? read_on() : open_next(); });
      if (!step) bad(step.error());
    }
    return used_;
  }

  [[nodiscard]] std::uint64_t bytes_read() const { return bytes_read_; }

 private:
  /// A header and a digest, or the beginning of a reason.
  static constexpr std::size_t kLeast = sizeof(Header) + 64;
  /// Opening small ones takes longer than to send them: the nodes need not wait for a full frame.
  static constexpr std::size_t kMostFilesInAFrame = 32;

  static std::vector<ReadAhead::File> as_they_lie(const Depot* depot,
                                                  const std::vector<std::uint32_t>& files) {
    std::vector<ReadAhead::File> list;
    for (const std::uint32_t file : files) {
      list.push_back({depot->files()[file].from, depot->files()[file].spec.size});
    }
    return list;
  }

  Status open_next() {
    file_ = files_[next_++];
    const Depot::File& file = depot_->files()[file_];
    std::uint64_t there = 0;
    if (auto read = ahead_.next()) {
      FVP_TRY(whole_, *std::move(read));
      there = whole_.size();
    } else {
      FVP_TRY(posix::Opened opened, posix::open_with_info(file.from));
      there = opened.info.size;
      fd_ = std::move(opened.fd);
    }
    size_ = file.spec.size.value_or(there);
    if (there != size_) return changed(there);
    hasher_.reset();
    if (!file.spec.digest) hasher_.emplace(Digest::Kind::kSha256, size_);
    offset_ = 0;
    open_ = true;
    return {};
  }

  Status read_on() {
    if (offset_ == size_) {
      const std::string hex = hasher_ ? hasher_->finish() : "";
      put(Kind::kEnd, hex);
      close();
      return {};
    }
    const std::size_t at = used_ + sizeof(Header);
    const std::size_t most = std::min<std::uint64_t>(room_.size() - at, size_ - offset_);
    const std::span<std::byte> piece = room_.subspan(at, most);
    FVP_TRY(const std::size_t length, read_piece(piece));
    if (length == 0) return changed(offset_);
    if (hasher_) hasher_->update(piece.first(length));
    put_header(Kind::kData, length);
    used_ += length;
    offset_ += length;
    bytes_read_ += length;
    return {};
  }

  Result<std::size_t> read_piece(std::span<std::byte> piece) {
    if (fd_) return posix::read_at(fd_, offset_, piece, depot_->files()[file_].from);
    std::copy_n(whole_.begin() + static_cast<std::ptrdiff_t>(offset_), piece.size(), piece.begin());
    return piece.size();
  }

  void close() {
    open_ = false;
    fd_ = posix::Fd();
    whole_.clear();
  }

  Status changed(std::uint64_t size) const {
    return fail(ErrorCode::kIntegrity, depot_->files()[file_].from + " has " +
                                           std::to_string(size) + " bytes, expected " +
                                           std::to_string(size_) + ": somebody changes it");
  }

  void bad(const Error& error) {
    put(Kind::kBad, to_json(failed_report(error)));
    close();
  }

  void put_header(Kind kind, std::uint64_t length) {
    const Header header{file_, kind, length};
    std::memcpy(room_.data() + used_, &header, sizeof header);
    used_ += sizeof header;
  }
  void put(Kind kind, std::string_view text) {
    // A reason that does not fit is cut, and then no JSON: the file is named all the same.
    const std::string_view part = text.substr(0, room_.size() - used_ - sizeof(Header));
    put_header(kind, part.size());
    std::memcpy(room_.data() + used_, part.data(), part.size());
    used_ += part.size();
  }

  const Depot* depot_;  // not null where there are files
  const std::vector<std::uint32_t> files_;
  ReadAhead ahead_;
  std::size_t next_ = 0;
  std::span<std::byte> room_;
  std::size_t used_ = 0;
  std::uint32_t file_ = 0;
  bool open_ = false;
  posix::Fd fd_;                  // of one that is read piece by piece
  std::vector<std::byte> whole_;  // of one that was read ahead
  std::uint64_t size_ = 0;
  std::uint64_t offset_ = 0;
  std::optional<Hasher> hasher_;
  std::atomic<std::uint64_t> bytes_read_ = 0;
};

Error error_from_text(std::string_view text, const std::string& file) {
  const auto report = report_from_json(text);
  if (report && report->error) return *report->error;
  return fail(ErrorCode::kInternal, "rank 0 cannot read " + file).value();
}

// What is published at once. Each file alone would be synced alone, and its folder with it, which
// is most of what a small one costs; but what a node holds back is lost when it is killed.
constexpr std::size_t kMostHeldBack = 64;
constexpr std::uint64_t kMostBytesHeldBack = std::uint64_t{64} << 20U;

// A node's end: one thread hashes, one writes and publishes.
class Receiver {
 public:
  /// `wanted`: by file, what this node lacks.
  Receiver(Depot* depot, std::vector<bool> wanted) : depot_(depot), wanted_(std::move(wanted)) {}

  void hash(std::span<const std::byte> frame) {
    each(frame, [this](const Header& header, std::span<const std::byte> bytes) {
      switch (header.kind) {
        case Kind::kData:
          hasher_of(header.file).update(bytes);
          break;
        case Kind::kEnd:
          say_digest(header.file, hasher_of(header.file).finish());
          hasher_.reset();
          break;
        case Kind::kBad:
          hasher_.reset();
          break;
      }
    });
  }

  void write(std::span<const std::byte> frame) {
    each(frame, [this](const Header& header, std::span<const std::byte> bytes) {
      Status done;
      switch (header.kind) {
        case Kind::kData:
          done = guard([&] { return write_piece(header.file, bytes); });
          break;
        case Kind::kEnd:
          done = guard([&] { return end_file(header.file, text_of(bytes)); });
          break;
        case Kind::kBad:
          drop();
          blame(header.file,
                error_from_text(text_of(bytes), depot_->files()[header.file].spec.path));
          break;
      }
      if (!done) give_up(done.error());
    });
  }

  /// This node takes no more.
  [[nodiscard]] bool out() const { return out_; }

  // After the chain.

  [[nodiscard]] const std::optional<Error>& error() const { return error_; }
  /// By entry, as numbers in Cargo::entries: what is wrong with the sender's copy.
  [[nodiscard]] const std::map<std::size_t, Error>& blamed() const { return blamed_; }
  [[nodiscard]] std::uint64_t files() const { return files_; }
  [[nodiscard]] std::uint64_t bytes() const { return bytes_; }
  /// Of the wanted ones.
  [[nodiscard]] bool has(std::size_t file) const { return came_[file]; }
  /// Publishes what was held back, whatever failed, and removes what is not whole.
  void end() {
    const Status published = publish_held();
    if (!published && !out_) give_up(published.error());  // the error that matters is the first one
    drop();
  }

 private:
  template <typename F>
  void each(std::span<const std::byte> frame, F&& use) {
    while (frame.size() >= sizeof(Header)) {
      Header header;
      std::memcpy(&header, frame.data(), sizeof header);
      frame = frame.subspan(sizeof header);
      const auto bytes = frame.first(std::min<std::uint64_t>(header.length, frame.size()));
      frame = frame.subspan(bytes.size());
      if (out_ || header.file >= wanted_.size() || !wanted_[header.file]) continue;
      use(header, bytes);
    }
  }

  static std::string_view text_of(std::span<const std::byte> bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

  /// Of the file that is coming; begun with its first record, which of an empty one is its last.
  Hasher& hasher_of(std::uint32_t file) {
    if (!hasher_) {
      const FileSpec& spec = depot_->files()[file].spec;
      const Digest expected = spec.digest.value_or(Digest{});
      hasher_.emplace(expected.kind, spec.size.value_or(0));
    }
    return *hasher_;
  }

  void say_digest(std::uint32_t file, std::string hex) {
    {
      const std::lock_guard lock(mutex_);
      digests_[file] = std::move(hex);
    }
    hashed_.notify_all();
  }
  std::string digest_of(std::uint32_t file) {
    std::unique_lock lock(mutex_);
    // The hasher is given the same frames, and stops at nothing.
    hashed_.wait(lock, [&] { return digests_.contains(file) || out_; });
    const auto found = digests_.find(file);
    if (found == digests_.end()) return {};
    std::string hex = std::move(found->second);
    digests_.erase(found);
    return hex;
  }

  Status write_piece(std::uint32_t file, std::span<const std::byte> bytes) {
    if (!open_) {
      // Nothing waits for a large file.
      const std::uint64_t size = depot_->files()[file].spec.size.value_or(0);
      if (held_bytes_ + size > kMostBytesHeldBack) FVP_CHECK_OK(publish_held());
      FVP_TRY(Depot::Private made, depot_->create(file));
      open_.emplace(std::move(made));
      offset_ = 0;
    }
    FVP_CHECK_OK(posix::write_at(open_->fd, offset_, bytes, open_->path));
    offset_ += bytes.size();
    return {};
  }

  Status end_file(std::uint32_t file, std::string_view told) {
    FVP_CHECK_OK(write_piece(file, {}));  // an empty one was not begun
    const FileSpec& spec = depot_->files()[file].spec;
    const std::string hex = digest_of(file);
    const Digest expected = spec.digest.value_or(Digest{Digest::Kind::kSha256, std::string(told)});
    if (!agrees(expected, hex)) {
      drop();
      blame(file, fail(ErrorCode::kIntegrity,
                       spec.path + ": expected " + std::string(name(expected.kind)) + " " +
                           expected.hex + ", got " + hex + " from the shared copy",
                       "`fvprefetch verify --repair` fetches what is wrong anew")
                      .value());
      return {};
    }
    const bool sha256 = expected.kind == Digest::Kind::kSha256;
    held_.push_back(
        {file, *std::exchange(open_, std::nullopt), offset_, sha256 ? hex : std::string()});
    held_bytes_ += offset_;
    if (held_.size() < kMostHeldBack && held_bytes_ < kMostBytesHeldBack) return {};
    return publish_held();
  }

  Status publish_held() {
    if (held_.empty()) return {};
    held_bytes_ = 0;
    FVP_TRY(const Depot::Published published, guard([&]() -> Result<Depot::Published> {
              return depot_->publish(std::exchange(held_, {}));
            }));
    for (const std::size_t file : published.files) came_[file] = true;
    files_ += published.files.size();
    bytes_ += published.bytes;
    return published.status;
  }

  void drop() {
    if (!open_) return;
    (void)posix::remove_file(open_->path);  // best effort: it is private
    open_.reset();
  }
  void blame(std::uint32_t file, Error error) {
    blamed_.emplace(depot_->files()[file].entry, std::move(error));
  }
  void give_up(Error error) {
    drop();
    error_ = std::move(error);
    out_ = true;
  }

  Depot* depot_;  // not null where something is wanted
  const std::vector<bool> wanted_;
  std::atomic<bool> out_ = false;

  // The hashing thread's.
  std::optional<Hasher> hasher_;

  std::mutex mutex_;
  std::condition_variable hashed_;
  std::map<std::uint32_t, std::string> digests_;  // under mutex_: of files that are whole

  // The writing thread's.
  std::optional<Depot::Private> open_;
  std::uint64_t offset_ = 0;
  std::vector<Depot::Whole> held_;  // not yet published
  std::uint64_t held_bytes_ = 0;
  std::vector<bool> came_ = std::vector<bool>(wanted_.size(), false);
  std::map<std::size_t, Error> blamed_;
  std::optional<Error> error_;
  std::uint64_t files_ = 0;
  std::uint64_t bytes_ = 0;
};

// --- The order -----------------------------------------------------------------------------------

// As every rank knows it.
struct Order : StageOrder {
  std::vector<std::string> paths;  // by entry of the cargo: what it will be on rank 0's node
};

Result<std::optional<Order>> as_order(std::optional<StageOrder> wish) {
  if (!wish) return std::nullopt;
  Order order{*std::move(wish), {}};
  Depot depot(order.cargo);
  FVP_CHECK_OK(depot.open());
  for (std::size_t i = 0; i < order.cargo.entries.size(); ++i) order.paths.push_back(depot.path(i));
  return order;
}

std::string order_to_text(const Order& order) {
  return json{{"cargo", cargo_to_text(order.cargo)},
              {"paths", order.paths},
              {"directory", order.directory},
              {"required", order.required},
              {"min_nodes", order.min_nodes}}
      .dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<std::optional<Order>> order_from_text(std::string_view text) {
  if (text.empty()) return std::nullopt;
  const json in = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!in.is_object()) return fail(ErrorCode::kInternal, "rank 0's order is not JSON");
  try {
    if (in.contains("error")) return fail(error_from_json(in["error"]));
    Order order;
    in.at("paths").get_to(order.paths);
    FVP_TRY(order.cargo, cargo_from_text(in.at("cargo").get<std::string>()));
    order.directory = in.at("directory").get<std::string>();
    order.required = in.at("required").get<bool>();
    order.min_nodes = in.at("min_nodes").get<int>();
    if (order.paths.size() == order.cargo.entries.size()) return order;
    return fail(ErrorCode::kInternal, "rank 0's order has not a path for each entry");
  } catch (const json::exception& e) {
    return fail(ErrorCode::kInternal, std::string("rank 0's order: ") + e.what());
  }
}

// --- How a node fared ----------------------------------------------------------------------------

struct Outcome {
  NodeReport report;
  std::vector<std::size_t> complete;  // entries, as numbers in the cargo
  /// Of these, where the path is another than on rank 0's node: a folder on the way is a link that
  /// leads elsewhere. (Few, usually none, for texts to gather are short.)
  std::map<std::size_t, std::string> paths;
  std::map<std::size_t, Error> blamed;  // by entry, likewise: the shared copy cannot be used
  std::uint64_t bytes_read = 0;         // rank 0
  std::optional<Error> stopped;
};

std::string outcome_to_text(const Outcome& outcome) {
  json out{{"node", outcome.report.node},
           {"files", outcome.report.files},
           {"bytes", outcome.report.bytes},
           {"seconds", outcome.report.seconds},
           {"bytes_read", outcome.bytes_read}};
  if (outcome.report.error) out["error"] = error_to_json(*outcome.report.error);
  if (outcome.stopped) out["stopped"] = error_to_json(*outcome.stopped);
  out["complete"] = outcome.complete;
  out["paths"] = json::array();
  for (const auto& [entry, path] : outcome.paths) out["paths"].push_back({entry, path});
  out["blamed"] = json::array();
  for (const auto& [entry, error] : outcome.blamed) {
    out["blamed"].push_back({entry, error_to_json(error)});
  }
  return out.dump(-1, ' ', false, json::error_handler_t::replace);
}

Result<Outcome> outcome_from_text(std::string_view text) {
  const json in = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!in.is_object()) return fail(ErrorCode::kInternal, "a node's outcome is not JSON");
  try {
    Outcome outcome;
    outcome.report.node = in.at("node").get<std::string>();
    outcome.report.files = in.at("files").get<std::uint64_t>();
    outcome.report.bytes = in.at("bytes").get<std::uint64_t>();
    outcome.report.seconds = in.at("seconds").get<double>();
    outcome.bytes_read = in.at("bytes_read").get<std::uint64_t>();
    if (in.contains("error")) outcome.report.error = error_from_json(in["error"]);
    if (in.contains("stopped")) outcome.stopped = error_from_json(in["stopped"]);
    in.at("complete").get_to(outcome.complete);
    for (const json& one : in.at("paths")) {
      outcome.paths.emplace(one.at(0).get<std::size_t>(), one.at(1).get<std::string>());
    }
    for (const json& one : in.at("blamed")) {
      outcome.blamed.emplace(one.at(0).get<std::size_t>(), error_from_json(one.at(1)));
    }
    outcome.report.entries = outcome.complete.size();
    return outcome;
  } catch (const json::exception& e) {
    return fail(ErrorCode::kInternal, std::string("a node's outcome: ") + e.what());
  }
}

// --- The leaders' part ---------------------------------------------------------------------------

// What a node lacks, eight files to a byte, behind a letter: '+' takes part, '-' is out.
std::string bits_to_text(const std::vector<bool>& bits, bool in) {
  std::string text(1 + (bits.size() + 7) / 8, '\0');
  text[0] = in ? '+' : '-';
  for (std::size_t i = 0; i < bits.size(); ++i) {
    if (in && bits[i]) text[1 + i / 8] = static_cast<char>(text[1 + i / 8] | (1 << (i % 8)));
  }
  return text;
}
bool bit_of(const std::string& text, std::size_t i) {
  return 1 + i / 8 < text.size() &&
         ((static_cast<unsigned char>(text[1 + i / 8]) >> (i % 8)) & 1U) != 0;
}

using MustStop = std::function<std::optional<Error>()>;

// What a node has of the cargo. Used by one thread at a time; owned together, since one of them may
// be left behind.
struct NodeState {
  explicit NodeState(std::shared_ptr<const Order> wanted_order) : order(std::move(wanted_order)) {}

  const std::shared_ptr<const Order> order;
  Depot depot{order->cargo};
  std::unique_ptr<HeldLock> alone;
  bool opened = false;
  bool looked = false;
  std::vector<bool> wanted;           // files that are not here
  std::vector<bool> lacks;            // files that are still not here
  std::vector<std::size_t> complete;  // entries, as numbers in the cargo
  std::map<std::size_t, std::string> paths;
};

Status prepare(NodeState& state, bool takes, bool locks, const MustStop& must_stop,
               Observer* observer) {
  FVP_CHECK_OK(state.depot.open());
  state.opened = true;
  if (locks) {
    FVP_TRY(state.alone, state.depot.keep_others_out(must_stop, observer));
  }
  state.wanted.resize(state.depot.files().size(), false);
  if (takes) {
    FVP_TRY(state.wanted, state.depot.missing());
  }
  state.lacks = state.wanted;
  state.looked = true;
  return state.depot.has_room_for(state.wanted);
}

Status complete(NodeState& state, bool takes, const std::map<std::size_t, Error>& blamed) {
  if (!state.looked) return {};
  for (std::size_t i = 0; i < state.order->cargo.entries.size(); ++i) {
    const std::vector<std::size_t>& files = state.depot.files_of(i);
    const bool whole =
        std::none_of(files.begin(), files.end(), [&](std::size_t f) { return state.lacks[f]; });
    if (!whole || blamed.contains(i)) continue;
    if (takes) FVP_CHECK_OK(state.depot.complete(i));
    state.complete.push_back(i);
    const std::string& path = state.depot.path(i);
    if (path != state.order->paths[i]) state.paths.emplace(i, path);
  }
  return {};
}

class Node {
 public:
  /// `leaders`: null on a rank that leads no node, which only waits with the others.
  Node(Collective& ranks, Collective* leaders, std::shared_ptr<const Order> order,
       const StageOptions& options)
      : ranks_(ranks), leaders_(leaders), order_(std::move(order)), options_(options) {}

  /// The same collectives on every rank. Fails when they do.
  Result<Outcome> run() {
    const auto begin = std::chrono::steady_clock::now();
    if (leaders_ != nullptr) {
      outcome_.report.node = leaders_->node();
      const bool takes = options_.takes;
      auto ready = attended(ranks_, options_.attendance,
                            [order = order_, takes, locks = takes && leaders_->size() == 1,
                             must_stop = options_.attendance.must_stop,
                             observer = options_.observer]() -> Result<Prepared> {
                              Prepared made{std::make_shared<NodeState>(order), std::nullopt};
                              const Status done =
                                  prepare(*made.state, takes, locks, must_stop, observer);
                              if (!done) made.error = done.error();
                              return made;
                            });
      if (ready) {
        state_ = std::move(ready->state);
        outcome_.report.error = std::move(ready->error);
      } else {
        outcome_.report.error = ready.error();
      }
      note_stop();
    }
    FVP_CHECK_OK(ranks_.await_work(options_.attendance.vigil));
    if (leaders_ == nullptr) return std::move(outcome_);
    FVP_CHECK_OK(ship());
    if (state_ != nullptr) finish();
    outcome_.report.seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    return std::move(outcome_);
  }

 private:
  struct Prepared {
    std::shared_ptr<NodeState> state;
    std::optional<Error> error;
  };

  void note_stop() {
    const MustStop& must_stop = options_.attendance.must_stop;
    if (!outcome_.stopped && must_stop) outcome_.stopped = must_stop();
  }

  Status ship() {
    const bool in = !outcome_.report.error;
    const bool sends = leaders_->rank() == 0;
    const bool opened = state_ != nullptr && state_->opened;
    const std::vector<bool> nothing;
    FVP_TRY(const std::vector<std::string> needs,
            leaders_->all_gather(
                sends && !opened ? "" : bits_to_text(state_ ? state_->wanted : nothing, in)));
    if (needs.front().empty()) {  // rank 0 does not even know which files there are
      if (in) outcome_.report.error = fail(ErrorCode::kInternal, "rank 0 cannot send").value();
      return {};
    }
    const auto out = std::count_if(needs.begin(), needs.end(),
                                   [](const std::string& text) { return text[0] == '-'; });
    std::vector<std::uint32_t> files;  // that any node lacks
    std::size_t most = 0;
    for (const std::string& text : needs) most = std::max(most, (text.size() - 1) * 8);
    for (std::size_t i = 0; i < most; ++i) {
      const bool lacks = std::any_of(needs.begin(), needs.end(),
                                     [i](const std::string& text) { return bit_of(text, i); });
      if (lacks) files.push_back(static_cast<std::uint32_t>(i));
    }
    // All of this is the same on every leader.
    if (files.empty() || !goes_on(out)) return {};

    if (sends) plan(files);
    // Their threads own them, and what they work on.
    struct Ends {
      Ends(std::shared_ptr<NodeState> node, std::vector<std::uint32_t> sent,
           std::vector<bool> taken)
          : state(std::move(node)),
            sender(depot(), std::move(sent)),
            receiver(depot(), std::move(taken)) {}
      Depot* depot() { return state ? &state->depot : nullptr; }

      std::shared_ptr<NodeState> state;
      Sender sender;
      Receiver receiver;
    };
    auto ends =
        std::make_shared<Ends>(state_, sends ? std::move(files) : std::vector<std::uint32_t>(),
                               in ? state_->wanted : nothing);
    bool unable = false;
    ChainEnd end;
    FVP_TRY(end.names, leaders_->all_gather(leaders_->node()));
    end.source = [ends](std::span<std::byte> room) { return ends->sender.fill(room); };
    end.takers = {[ends](std::span<const std::byte> frame) { ends->receiver.hash(frame); },
                  [ends](std::span<const std::byte> frame) { ends->receiver.write(frame); }};
    end.word = [&, raw = ends.get()] {
      if (sends) tell(raw->sender.bytes_read());
      return word(!in || unable || raw->receiver.out());
    };
    end.go_on = [&](const ChainWord& sum) { return sum.signal == 0 && goes_on(sum.out); };
    end.unable = [&](const Error& error) {
      unable = true;
      if (!outcome_.report.error) outcome_.report.error = error;
    };
    end.attend = [&] { look_after(ranks_, options_.attendance.vigil); };
    end.must_stop = options_.attendance.must_stop;
    const ChainResult shipped = run_chain(*leaders_, end, options_.chain);
    if (sends && !shipped.error) {
      told_.reset();
      tell(ends->sender.bytes_read());
    }
    // What is still to be published waits for the disk; what is not whole goes, whatever failed.
    Status ended;
    if (!shipped.left_behind) {
      ended = attended(ranks_, options_.attendance, [ends]() -> Status {
        ends->receiver.end();
        return {};
      });
    }
    if (shipped.error) return fail(*shipped.error);
    if (shipped.left_behind || !ended) {
      if (!ended && !outcome_.report.error) outcome_.report.error = ended.error();
      note_stop();
      state_.reset();  // the other thread's
      return {};
    }
    outcome_.report.files = ends->receiver.files();
    outcome_.report.bytes = ends->receiver.bytes();
    outcome_.bytes_read = ends->sender.bytes_read();
    if (ends->receiver.error()) outcome_.report.error = ends->receiver.error();
    outcome_.blamed = ends->receiver.blamed();
    for (std::size_t i = 0; in && i < state_->wanted.size(); ++i) {
      if (ends->receiver.has(i)) state_->lacks[i] = false;
    }
    // A thread that reads ahead may still be in a call that hangs: its end is waited for elsewhere.
    end = {};
    (void)attended(ranks_, options_.attendance, [last = std::move(ends)]() mutable -> Status {
      last.reset();
      return {};
    });
    return {};
  }

  void finish() {
    const auto ended = std::make_shared<std::atomic<bool>>(false);
    const auto settled = attended(
        ranks_, options_.attendance,
        [state = state_, takes = options_.takes, blamed = outcome_.blamed, ended]() -> Status {
          Status done = complete(*state, takes, blamed);
          *ended = true;
          return done;
        });
    if (!settled) {
      if (!outcome_.report.error) outcome_.report.error = settled.error();
      note_stop();
      if (!*ended) return;  // `state` is the other thread's
    }
    outcome_.complete = state_->complete;
    outcome_.paths = state_->paths;
  }

  /// Rank 0: what it is about to send.
  void plan(const std::vector<std::uint32_t>& files) {
    if (options_.observer == nullptr) return;
    FetchPlanned planned;
    planned.work = Work::kCopying;
    planned.files = files.size();
    for (const std::uint32_t file : files) {
      const auto& size = state_->depot.files()[file].spec.size;
      planned.bytes += size.value_or(0);
      planned.bytes_exact = planned.bytes_exact && size;
    }
    progress_.bytes_total = planned.bytes;
    progress_.bytes_exact = planned.bytes_exact;
    options_.observer->on_event(planned);
  }
  /// Rank 0, again and again: it has sent so much.
  void tell(std::uint64_t bytes) {
    const auto now = std::chrono::steady_clock::now();
    if (options_.observer == nullptr || (told_ && now - *told_ < std::chrono::milliseconds(100))) {
      return;
    }
    told_ = now;
    progress_.bytes_done = bytes;
    options_.observer->on_event(progress_);
  }

  ChainWord word(bool out) {
    note_stop();
    return {out ? 1U : 0U,
            outcome_.stopped ? static_cast<std::uint32_t>(exit_code(outcome_.stopped->code)) : 0U};
  }

  /// With so many nodes out: whether there is still something to reach.
  [[nodiscard]] bool goes_on(std::ptrdiff_t out) const {
    const std::ptrdiff_t left = leaders_->size() - out;
    return left > 0 && !(order_->required && out > 0) && left >= order_->min_nodes;
  }

  Collective& ranks_;
  Collective* leaders_;
  const std::shared_ptr<const Order> order_;
  const StageOptions& options_;
  std::shared_ptr<NodeState> state_;  // null: it cannot be had, or belongs to a thread left behind
  Outcome outcome_;
  BytesArrived progress_;  // rank 0
  std::optional<std::chrono::steady_clock::time_point> told_;
};

// --- What it comes to ----------------------------------------------------------------------------

Error on_node(Error error, const Outcome& outcome, const Order& order) {
  return with_context(
      std::move(error),
      order.directory.empty()
          ? "while filling the cache of node " + outcome.report.node
          : "while staging to " + order.directory + " on node " + outcome.report.node);
}

// Why the run failed; nullopt: it did not. The same on every rank.
std::optional<Error> verdict(const Order& order, const std::vector<Outcome>& nodes) {
  for (const Outcome& node : nodes) {
    if (node.stopped) return node.stopped;
  }
  std::optional<Error> first;   // that a node has met itself
  std::optional<Error> others;  // what that meant for another one
  int whole = 0;
  for (const Outcome& node : nodes) {
    if (node.complete.size() + node.blamed.size() == order.cargo.entries.size()) {
      ++whole;
    } else if (node.report.error) {
      if (!first) first = on_node(*node.report.error, node, order);
    } else if (!others) {
      others =
          on_node(fail(ErrorCode::kInternal, "the copying was ended before it was whole").value(),
                  node, order);
    }
  }
  if (!first) first = std::move(others);
  if (!first || (!order.required && whole >= order.min_nodes)) return std::nullopt;
  if (order.required) return first;
  return with_context(*std::move(first), std::to_string(whole) + " of " +
                                             std::to_string(nodes.size()) +
                                             " nodes have all entries, at least " +
                                             std::to_string(order.min_nodes) + " must");
}

// A shared copy that is not what it was verified to be is nothing to fall back to.
void mark_blamed(const Order& order, const std::vector<Outcome>& nodes, Report& report) {
  std::size_t optional = 0;
  for (const Outcome& node : nodes) {
    for (const auto& [number, error] : node.blamed) {
      EntryReport& entry = report.entries[order.cargo.entries[number].index];
      if (entry.state == EntryState::kFailed) continue;
      entry.state = EntryState::kFailed;
      entry.path.clear();
      entry.error = on_node(error, node, order);
      if (entry.optional) {
        ++optional;
      } else if (report.ok() || report.code() == ErrorCode::kPartial) {
        report.error = with_context(*entry.error, "entry `" + entry.name + "`");
      }
    }
  }
  if (optional > 0 && report.ok()) {
    report.error = only_optional_failed(optional, report.entries.size());
  }
}

Result<Report> settle(Collective& ranks, Report report, const Order& order,
                      const std::vector<std::string>& texts) {
  std::vector<Outcome> nodes;
  std::size_t mine = 0;
  for (std::size_t rank = 0; rank < texts.size(); ++rank) {
    if (texts[rank].empty()) continue;  // no leader
    if (static_cast<int>(rank) == ranks.leader()) mine = nodes.size();
    FVP_TRY(Outcome outcome, outcome_from_text(texts[rank]));
    nodes.push_back(std::move(outcome));
  }
  StageReport staged;
  staged.directory = order.directory;
  for (const Outcome& node : nodes) {
    staged.bytes_read += node.bytes_read;
    staged.nodes.push_back(node.report);
    NodeReport& told = staged.nodes.back();
    if (!told.error && !node.blamed.empty()) told.error = node.blamed.begin()->second;
  }
  for (const auto& [index, why] : order.cargo.left_behind) {
    report.entries[index].warnings.push_back("not copied to the nodes: " + why);
  }
  mark_blamed(order, nodes, report);
  if (auto error = verdict(order, nodes)) report.error = std::move(error);
  if (!order.directory.empty()) {
    for (const std::size_t number : nodes[mine].complete) {
      EntryReport& entry = report.entries[order.cargo.entries[number].index];
      if (entry.state == EntryState::kFailed) continue;
      const auto own = nodes[mine].paths.find(number);
      entry.path = own != nodes[mine].paths.end() ? own->second : order.paths[number];
      entry.state = EntryState::kStaged;
    }
  }
  if (!order.directory.empty()) report.stage = std::move(staged);
  return report;
}

Result<Report> run(Collective& ranks, Report report,
                   const std::function<Result<std::optional<StageOrder>>()>& make_order,
                   const StageOptions& options) {
  // No bytes: nothing to stage.
  std::string wire;
  std::optional<Order> own;
  if (ranks.rank() == 0) {
    auto made = attended(ranks, options.attendance, [make_order]() -> Result<std::optional<Order>> {
      FVP_TRY(std::optional<StageOrder> wish, make_order());
      return as_order(std::move(wish));
    });
    if (made) {
      own = *std::move(made);
      if (own) wire = order_to_text(*own);
    } else {
      wire = json{{"error", error_to_json(made.error())}}.dump(-1, ' ', false,
                                                               json::error_handler_t::replace);
    }
  }
  FVP_CHECK_OK(ranks.await_work(options.attendance.vigil));
  const WaitLimit limit(ranks, options.attendance.vigil.patience);
  FVP_TRY(const std::string received, ranks.broadcast(std::move(wire)));
  FVP_TRY(std::optional<Order> read, order_from_text(received));
  if (!read) return report;
  // Rank 0's own is the same, and where the files are read.
  const auto order = std::make_shared<const Order>(own ? *std::move(own) : *std::move(read));
  FVP_TRY(const std::unique_ptr<Collective> leaders, ranks.leaders());
  FVP_TRY(const Outcome outcome, Node(ranks, leaders.get(), order, options).run());
  FVP_CHECK_OK(ranks.await_work(options.attendance.vigil));
  FVP_TRY(const std::vector<std::string> texts,
          ranks.all_gather(leaders != nullptr ? outcome_to_text(outcome) : ""));
  return settle(ranks, std::move(report), *order, texts);
}

}  // namespace

Result<std::optional<StageOrder>> stage_order(const Manifest& manifest, const Options& options,
                                              const Report& report) {
  if (options.stage.empty()) return std::nullopt;
  if (!options.stage.starts_with('/')) {
    return fail(ErrorCode::kUsage, "the stage directory " + options.stage + " is not absolute",
                "give a folder that is each node's own, like /local/job");
  }
  StageOrder order;
  FVP_TRY(order.cargo, load_cargo(manifest, options, report, place_in(options.stage)));
  order.directory = options.stage;
  order.required = options.stage_required;
  order.min_nodes = options.min_nodes;
  return order;
}

StageOptions stage_options(const Options& options, const Attendance& attendance) {
  StageOptions how;
  how.attendance = attendance;
  how.observer = options.observer;
  how.chain.patience = attendance.vigil.patience;
  return how;
}

Report stage(Collective& ranks, Report report,
             const std::function<Result<std::optional<StageOrder>>()>& order,
             const StageOptions& options) {
  if (!report.ok() && report.code() != ErrorCode::kPartial) return report;
  auto staged = guard([&] { return run(ranks, report, order, options); });
  if (staged) return *std::move(staged);
  report.error = staged.error();
  return report;
}

}  // namespace fvprefetch
