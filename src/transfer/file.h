// One download over all its attempts and connections: asks, judges what comes, writes it down. When
// and where an attempt is made, and how many connections there are, is decided by the engine.
// Private to it.
//
// A connection is a Stream. One alone may do everything: begin the file anew, go to the next
// address, take a whole file for an answer. Of several each fetches its own range, and what goes
// wrong with one is that one's matter: the bytes that it leaves are fetched by another.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "fvprefetch/error.h"
#include "transfer/engine.h"
#include "transfer/partial.h"
#include "transfer/ranges.h"
#include "transfer/sniff.h"
#include "transfer/transport.h"

namespace fvprefetch::engine {

/// A host that asks to be left alone for longer is left for another address, where there is one.
inline constexpr std::chrono::seconds kPatience(5);

/// What an attempt came to.
struct Outcome {
  enum class Kind {
    kWhole,        ///< all that the stream was to bring has come
    kAgain,        ///< transient
    kAskAnew,      ///< another request than this one has to be made, at once
    kMore,         ///< a part of what the stream was to bring has come, rightly: the rest is due
    kNextAddress,  ///< this address will not do
    kNoRange,      ///< one of several streams was answered with something else than its range
    kMismatch,     ///< what came is not the file
    kStop          ///< no address will do: the disk said no
  };
  Kind kind = Kind::kWhole;
  Error error;     ///< of all but kWhole
  int status = 0;  ///< HTTP's, when that is why
  /// The connection ended before an answer: some servers with a limit do that.
  bool turned_away = false;

  /// The server gave no file, and no words of another kind.
  [[nodiscard]] bool refused() const { return status >= 300 || turned_away; }
};

class File;

/// One request at a time, and the range that it is for.
class Stream final : public BodySink {
 public:
  Stream(File& file, Range piece) : file_(file), piece_(piece) {}
  bool on_head(const ResponseHead& head) override;
  bool on_body(const BodyPiece& piece) override;

  [[nodiscard]] const Range& piece() const { return piece_; }
  /// Has brought bytes of the file.
  [[nodiscard]] bool delivers() const { return delivers_; }
  /// The file, or its range, is coming now.
  [[nodiscard]] bool is_served() const { return phase_ == Phase::kFile; }
  [[nodiscard]] std::chrono::nanoseconds latency() const { return latency_; }

  // The engine's notes.
  std::optional<TransferId> transfer;  ///< runs
  Clock::TimePoint embargo{};          ///< else: not before
  int retries = 0;                     ///< since it last brought a good piece

 private:
  friend class File;
  enum class Phase {
    kHead,
    kErrorBody,  // words of an answer that is not the file
    kWrongSize,  // the length is wrong; a look at the body may tell why
    kFile
  };

  File& file_;
  Range piece_;                  // what is still to come
  std::uint64_t served_to_ = 0;  // where the answer ends; behind piece_.end when that was shortened
  std::uint64_t begun_at_ = 0;   // piece_.begin when the answer began
  bool ranged_ = false;          // asked for a range
  bool led_ = false;             // asked where its address had led before
  Phase phase_ = Phase::kHead;
  bool enough_ = false;  // ended by us, with all that it was to bring
  bool delivers_ = false;
  Clock::TimePoint begun_{};
  std::chrono::nanoseconds latency_{0};
  std::uint64_t brought_ = 0;  // since `retries` began to count
  std::optional<Outcome> refusal_;
  std::uint64_t announced_ = 0;  // kWrongSize: by Content-Length
  std::string error_body_;
};

class File {
 public:
  File(Download download, Partial::Workers workers, Clock& clock);

  // --- the address ---

  [[nodiscard]] const std::string& address() const { return spec().urls[address_]; }
  /// Of address(): scheme, host and port.
  [[nodiscard]] const std::string& origin() const { return origin_; }
  [[nodiscard]] bool has_next_address() const {
    return !last_round_ && address_ + 1 < spec().urls.size();
  }
  void next_address() { go_to(address_ + 1); }
  /// The address has no time now: it is come back to when the others will not do.
  void postpone() { postponed_ = postponed_.value_or(address_); }
  /// Goes back to what was postponed, for good; false: nothing was.
  bool come_back();
  /// The error of address(), for when none will do.
  void give_up(Error error);

  // --- streams ---

  [[nodiscard]] const std::vector<std::unique_ptr<Stream>>& streams() const { return streams_; }
  [[nodiscard]] bool alone() const { return streams_.size() <= 1; }
  /// The first one, for whatever is missing.
  void open();
  /// One more, when there is a range for it.
  bool open_another();
  /// What a stream that has brought its range does next; false: nothing that pays.
  bool give_more(Stream& stream);
  /// Its range is left to the others. Its transfer must have ended or been cancelled.
  void close(const Stream& stream);
  /// From now on one stream after the other: this server does not serve ranges as it said.
  void one_by_one();
  /// Who was answered with the whole file brings it all, also what others were to bring.
  void restore_whole();
  /// A server that refused a range is asked for the whole, once; false: it has been, or was now.
  bool ask_whole(const Stream& stream, const Outcome& outcome);
  [[nodiscard]] bool asked_whole() const { return asked_whole_; }
  /// From now on one stream, and the whole at once.
  void whole_only();
  /// This address has sent a range that it was asked for.
  [[nodiscard]] bool has_sent_ranges() const { return has_sent_ranges_; }
  /// Several streams have asked this address at once.
  [[nodiscard]] bool had_several() const { return had_several_; }
  /// The server said that there are too many.
  void at_most(int streams);
  /// How many streams could be of use now, when one brings `rate_of_one` bytes per second.
  [[nodiscard]] int most(std::optional<double> rate_of_one) const;
  void set_shares(ShareSizes sizes) { shares_ = sizes; }
  /// More than one may be of use, now or when more is known.
  [[nodiscard]] bool may_grow() const;

  /// The request of a stream's next attempt.
  Request begin(Stream& stream, std::chrono::milliseconds stall_timeout);
  /// Judges the attempt that ended.
  Outcome conclude(Stream& stream, const Completion& completion);

  // --- the end ---

  /// Every byte is there.
  [[nodiscard]] bool complete() const;
  /// Complete: size and digest against what was expected; nullopt while the digest is being made.
  [[nodiscard]] std::optional<Outcome> verify();
  /// After kWhole.
  Downloaded hand_out();

  [[nodiscard]] Partial& partial() { return partial_; }
  [[nodiscard]] const FileSpec& spec() const { return download_.spec; }
  [[nodiscard]] Error network_error(const std::string& what) const;
  [[nodiscard]] std::uint64_t bytes_there() const { return partial_.done().bytes(); }
  [[nodiscard]] std::optional<std::uint64_t> total() const { return partial_.total(); }
  [[nodiscard]] std::uint64_t requests() const { return requests_; }
  [[nodiscard]] std::uint64_t bytes_received() const { return bytes_received_; }

  // The engine's notes.
  std::vector<PartialPlace> others;  ///< to be looked at before the first request
  bool looked = false;
  int too_many = 0;  ///< how often too many downloads at once were taken for a refusal's reason
  int paused = 0;    ///< how often its own connections were, since one was last served
  Clock::TimePoint ask_by = Clock::TimePoint::max();  ///< by then it is, whatever else runs
  int asked_beside = 0;         ///< requests to its host that ran when it was last asked for
  int mismatches = 0;           ///< of all addresses
  std::vector<Error> given_up;  ///< one for each address

 private:
  friend class Stream;

  void go_to(std::size_t address);
  [[nodiscard]] Digest::Kind digest_kind() const {
    return spec().digest ? spec().digest->kind : Digest::Kind::kSha256;
  }
  [[nodiscard]] std::vector<Range> busy() const;

  bool on_head(Stream& stream, const ResponseHead& head);
  bool on_body(Stream& stream, const BodyPiece& body);
  bool start_over(Stream& stream, const ResponseHead& head, std::optional<std::uint64_t> length);
  [[nodiscard]] bool is_all(const ResponseHead& head) const;
  bool begin_with(Stream& stream, const ResponseHead& head, std::optional<std::uint64_t> size);
  bool go_on(Stream& stream, const ResponseHead& head);
  [[nodiscard]] std::optional<Outcome> refusal_of_coding(const ResponseHead& head);
  [[nodiscard]] Outcome not_sent(const std::string& what) const;
  bool write(Stream& stream, BodyPiece body);
  static bool refuse(Stream& stream, Outcome outcome);

  [[nodiscard]] Outcome mismatch(const std::string& what) const;
  [[nodiscard]] Outcome wrong_size(std::uint64_t actual) const;
  void look_at(const char* text, std::size_t size);
  [[nodiscard]] Impostor impostor() const;
  [[nodiscard]] bool is_unwelcome() const;
  [[nodiscard]] Outcome judge(Stream& stream, const Completion& completion);
  [[nodiscard]] std::optional<Outcome> judge_refused_range(Stream& stream,
                                                           const ResponseHead& head);
  /// A digest or a size was told beforehand: what the headers of an answer say of it counts less.
  [[nodiscard]] bool pinned() const { return spec().digest || spec().size; }
  [[nodiscard]] bool is_elsewhere(const ResponseHead& head) const;
  [[nodiscard]] Error explain(const Stream& stream, const Completion& completion,
                              bool answered) const;

  Download download_;
  Partial partial_;
  Clock& clock_;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::size_t address_ = 0;
  std::optional<std::size_t> postponed_;  // of the addresses
  bool last_round_ = false;               // that one was come back to
  std::string origin_;
  bool serves_ranges_ = false;  // as far as the server says
  bool one_by_one_ = false;
  bool from_ranges_ = false;  // the first request, too, is for a range
  bool whole_only_ = false;   // no request is
  bool asked_whole_ = false;  // ... since ranges were refused
  bool has_sent_ranges_ = false;
  bool had_several_ = false;
  std::string label_;  // what the server says of the bytes that it sends, and is not believed
  static constexpr int kNoLimit = 1 << 20;
  int most_ = kNoLimit;
  std::uint64_t one_more_at_ = 0;            // bytes that are there then
  ShareSizes shares_{4U << 20U, 1U << 20U};  // of each of several streams
  std::string led_to_;  // where address() leads, as long as nothing has failed there
  std::string sha256_;
  bool size_was_told_ = true;
  std::string beginning_;       // the first bytes of the file, up to kSniffBytes
  std::string content_type_;    // of the answer that they came with
  std::uint64_t furthest_ = 0;  // bytes that were there when a stream's retries began anew
  std::uint64_t requests_ = 0;
  std::uint64_t bytes_received_ = 0;
};

}  // namespace fvprefetch::engine
