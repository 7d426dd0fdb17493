#include "prefetch/depot.h"

#include <algorithm>
#include <map>
#include <utility>

#include "base/environment.h"
#include "base/try.h"
#include "cache/layout.h"
#include "prefetch/archive.h"
#include "prefetch/fetch.h"
#include "prefetch/keep.h"
#include "prefetch/lookup.h"
#include "prefetch/space.h"
#include "source/resolve.h"

namespace fvprefetch {

struct Depot::Item {
  std::unique_ptr<FileTarget> target;  ///< null: of a tree
  std::size_t entry = 0;               ///< of a tree: whose
  std::string member;                  ///< of a tree: its path in it
  bool executable = false;
  bool came = false;  ///< published here, and visible to every entry that wants it
};

struct Depot::Wanted {
  Source source;
  std::string path;
  std::vector<std::size_t> files;
  bool complete = false;  ///< it was, before anything came
  // Of an entry that is unpacked: the private directory that its files come into.
  std::unique_ptr<ArchiveTarget> archive;
  std::string tag;
  std::string directory;
  bool begun = false;
};

Depot::Depot(const Cargo& cargo) : cargo_(cargo) {
  options_.cache_dir = cargo.place.eval_cache;
  options_.hf_cache_dir = cargo.place.hub_cache;
  // The node's own environment, but for the caches, which the sender names.
  const std::string& torch_home = cargo.place.torch_home;
  options_.environment =
      environment::with(environment::or_process({}), "TORCH_HOME",
                        torch_home.empty() ? std::nullopt : std::optional(torch_home));
  options_.offline = true;
  session_ = std::make_unique<Session>(options_, Seams{});
}

Depot::~Depot() {
  for (const Wanted& wanted : entries_) {
    if (wanted.begun) (void)posix::remove_tree(wanted.directory);  // best effort: it is private
  }
}

Status Depot::open() {
  entries_.resize(cargo_.entries.size());
  for (std::size_t i = 0; i < entries_.size(); ++i) FVP_CHECK_OK(add(i));
  return {};
}

Status Depot::add(std::size_t number) {
  const CargoEntry& entry = cargo_.entries[number];
  Wanted& wanted = entries_[number];
  FVP_TRY(wanted.source,
          resolve(cargo_.manifest.entries[entry.index], session_->env(), session_->eval_cache()));
  const auto add_file = [&](std::unique_ptr<FileTarget> target, const CargoFile& file) {
    const auto [at, is_new] = by_path_.emplace(target->final_path(), items_.size());
    if (is_new) {
      files_.push_back({number, file.spec, file.from});
      Item item;
      item.target = std::move(target);
      items_.push_back(std::move(item));
    }
    wanted.files.push_back(at->second);
    return is_new ? nullptr : items_[at->second].target.get();
  };
  if (auto* url = std::get_if<UrlSource>(&wanted.source); url != nullptr && entry.archive) {
    return add_tree(number, *url);
  }
  if (auto* url = std::get_if<UrlSource>(&wanted.source); url != nullptr) {
    if (entry.files.size() != 1) return fail(ErrorCode::kInternal, "a URL is one file");
    url->file.size = entry.files.front().spec.size;
    url->file.digest = entry.files.front().spec.digest;
    wanted.path = url->path();
    add_file(std::make_unique<UrlTarget>(*url, std::nullopt, *session_), entry.files.front());
    return {};
  }
  const auto* hub = std::get_if<HubSource>(&wanted.source);
  if (hub == nullptr) {
    return fail(ErrorCode::kInternal,
                "entry `" + cargo_.manifest.entries[entry.index].name +
                    "` is an existing path on node " + posix::host_name() + " only",
                "start the job in a directory that looks the same on every node");
  }
  const HubStore store = session_->store(hub->repo);
  wanted.path = hub->filename.empty() ? store.paths().snapshot(entry.commit)
                                      : store.paths().pointer(entry.commit, hub->filename);
  for (const CargoFile& file : entry.files) {
    FVP_CHECK_OK(HubStore::accepts(file.spec));
    HubTarget::Pointer pointer{entry.commit, file.spec, hub->sha256, number, false};
    if (FileTarget* const there =
            add_file(std::make_unique<HubTarget>(store, pointer, *session_), file)) {
      static_cast<HubTarget&>(*there).also(std::move(pointer));
    }
  }
  return {};
}

Result<std::unique_ptr<HeldLock>> Depot::keep_others_out(const StopCheck& must_stop,
                                                         Observer* observer) {
  const layout::UrlFile eval(cargo_.place.eval_cache, "");
  const std::unique_ptr<Lock> lock =
      session_->locks().plain(layout::lock_beside(eval.locks(), "unload"), 0666);
  LockWait wait({}, session_->clock().now());
  for (;;) {
    auto held = lock->try_acquire();
    if (!held) return nullptr;
    if (*held) {
      (*held)->tell();
      return held;
    }
    if (auto stop = must_stop ? must_stop() : std::nullopt) return fail(*std::move(stop));
    const LockWait::Step step =
        wait.step(session_->clock().now(), lock->holder_progress(), lock->knows_holder());
    if (step.timed_out) {
      return fail(ErrorCode::kLockTimeout, "waited for " + lock->describe_holder() +
                                               ", which copies to " + cargo_.place.eval_cache);
    }
    if (step.say && observer != nullptr) {
      LockWaited event;
      event.path = cargo_.place.eval_cache;
      event.holder = lock->describe_holder();
      event.waited = wait.waited(session_->clock().now());
      observer->on_event(event);
    }
    session_->clock().sleep_until(step.next_try, {});
  }
}

const std::vector<Depot::File>& Depot::files() const {
  return files_;
}

Status Depot::add_tree(std::size_t number, UrlSource& url) {
  const CargoEntry& entry = cargo_.entries[number];
  Wanted& wanted = entries_[number];
  url.file.digest = Digest{Digest::Kind::kSha256, entry.archive->sha256};
  url.file.size = entry.archive->size;
  wanted.path = url.path();
  wanted.archive = std::make_unique<ArchiveTarget>(url, std::nullopt, *session_);
  wanted.tag = posix::random_tag();
  wanted.directory = layout::UrlFile(url.root, url.relative).unpacking(wanted.tag);
  for (const CargoFile& file : entry.files) {
    if (!layout::safe_relative_path(file.spec.path)) {
      return fail(ErrorCode::kIntegrity, "unsafe path in the cargo list: " + file.spec.path);
    }
    const auto [at, is_new] = by_path_.emplace(wanted.path + "/" + file.spec.path, items_.size());
    if (is_new) {
      files_.push_back({number, file.spec, file.from});
      Item item;
      item.entry = number;
      item.member = file.spec.path;
      item.executable = file.executable;
      items_.push_back(std::move(item));
    }
    wanted.files.push_back(at->second);
  }
  return {};
}

Status Depot::complete_tree(Wanted& wanted, const CargoEntry& entry) {
  std::set<std::string> folders{wanted.directory};
  std::vector<ReceiptFile> files;
  for (const CargoFile& file : entry.files) {
    files.push_back({.path = file.spec.path,
                     .size = file.spec.size.value_or(0),
                     .blob = {},
                     .sha256 = file.spec.digest->hex,
                     .mtime_ns = 0,
                     .link = {}});
    folders.insert(posix::parent(wanted.directory + "/" + file.spec.path));
  }
  // After the files, so that none was written through one of them.
  for (const auto& [path, text] : entry.links) {
    if (!layout::safe_relative_path(path)) {
      return fail(ErrorCode::kIntegrity, "unsafe path in the cargo list: " + path);
    }
    const std::string at = wanted.directory + "/" + path;
    FVP_CHECK_OK(posix::make_directories(posix::parent(at)));
    FVP_CHECK_OK(posix::make_link(at, text));
    files.push_back(
        {.path = path, .size = 0, .blob = {}, .sha256 = {}, .mtime_ns = 0, .link = text});
    folders.insert(posix::parent(at));
  }
  std::sort(files.begin(), files.end(),
            [](const ReceiptFile& a, const ReceiptFile& b) { return a.path < b.path; });
  for (const std::string& folder : folders) FVP_CHECK_OK(posix::sync_path(folder));
  FVP_CHECK_OK(wanted.archive->publish_tree(wanted.tag, *entry.archive, std::move(files)));
  wanted.begun = false;
  return {};
}

const std::vector<std::size_t>& Depot::files_of(std::size_t entry) const {
  return entries_[entry].files;
}

Result<std::vector<bool>> Depot::missing() {
  std::vector<bool> missing(files_.size(), false);
  for (std::size_t i = 0; i < entries_.size(); ++i) {
    const CargoEntry& entry = cargo_.entries[i];
    const auto* hub = std::get_if<HubSource>(&entries_[i].source);
    Told told;
    if (hub != nullptr) told.commit = entry.commit;
    FVP_TRY(const Survey survey, look(entries_[i].source, *session_, Hashing::kForbidden, told));
    // A file without a receipt may be anybody's: its bytes are here, so it is replaced.
    entries_[i].complete = survey.need == Survey::Need::kNothing && !survey.unchecked &&
                           (hub != nullptr || survey.verified_by == "receipt");
    if (entries_[i].complete) continue;
    // Most nodes have nothing of a repository, and one look tells so of all its files.
    const bool none =
        hub == nullptr || !posix::exists(session_->store(hub->repo).paths().directory());
    for (const std::size_t file : entries_[i].files) {
      if (none) {
        missing[file] = true;
        continue;
      }
      FVP_TRY(const bool present, items_[file].target->present());
      if (!present) missing[file] = true;
    }
  }
  return missing;
}

Status Depot::has_room_for(const std::vector<bool>& wanted) const {
  struct Need {
    std::uint64_t bytes = 0;
    std::uint64_t files = 0;
  };
  std::map<std::string, Need> needs;
  for (std::size_t i = 0; i < files_.size(); ++i) {
    if (!wanted[i]) continue;
    const bool hub = !files_[i].spec.blob.empty();
    Need& need = needs[hub ? cargo_.place.hub_cache : cargo_.place.eval_cache];
    need.bytes = add_sizes(need.bytes, files_[i].spec.size.value_or(0));
    ++need.files;
  }
  SpaceCheck space;
  for (const auto& [directory, need] : needs) {
    if (!cargo_.space_check) break;
    const SpaceCheck::Answer answer = space.take(directory, need.bytes, need.files);
    if (answer.free_files) {
      return fail(too_many_files(need.files, directory, *answer.free_files));
    }
    if (answer.free && !answer.fits) {
      const std::string all = std::to_string(add_sizes(answer.others, need.bytes));
      return fail(does_not_fit("what is missing needs " + all + " bytes", directory, *answer.free));
    }
  }
  return {};
}

Result<Depot::Private> Depot::create(std::size_t file) {
  if (const Item& item = items_[file]; !item.target) {
    Wanted& wanted = entries_[item.entry];
    wanted.begun = true;
    Private made;
    made.path = wanted.directory + "/" + item.member;
    FVP_TRY(made.fd, posix::create_private(made.path));
    return made;
  }
  Target& target = *items_[file].target;
  FVP_CHECK_OK(target.prepare(prepared_));
  Private made;
  made.path = target.partial(tag_).data;
  FVP_TRY(made.fd, posix::create_private(made.path));
  return made;
}

Depot::Published Depot::publish(std::vector<Whole> files) {
  Published published;
  const auto note = [&published](const Status& status) {
    if (published.status) published.status = status;  // the error that matters is the first one
    return status.has_value();
  };
  const auto came = [&published](const Whole& whole) {
    published.files.push_back(whole.file);
    published.bytes += whole.size;
  };
  std::vector<posix::Unpublished> named;
  std::vector<const Whole*> of;  // each of these
  for (Whole& whole : files) {
    if (!note(ready(whole, named))) break;
    if (named.size() > of.size()) {
      of.push_back(&whole);
    } else {
      came(whole);
    }
  }
  const posix::Published done = posix::publish(std::move(named));
  note(done.status);
  for (std::size_t i = 0; i < done.infos.size(); ++i) {
    Item& item = items_[of[i]->file];
    if (!note(item.target->reveal(done.infos[i], of[i]->sha256))) break;
    item.came = item.target->refused().empty();
    came(*of[i]);
  }
  if (!published.status) {
    for (const Whole& whole : files) {  // what has its name is not there any more
      if (items_[whole.file].target) (void)posix::remove_file(whole.written.path);
    }
  }
  return published;
}

// One of a tree is published with it, later.
Status Depot::ready(Whole& whole, std::vector<posix::Unpublished>& files) {
  const Item& item = items_[whole.file];
  auto& [fd, path] = whole.written;
  if (item.target) {
    FVP_CHECK_OK(item.target->admit(path));
    files.push_back({std::move(fd), path, item.target->final_path()});
    return {};
  }
  if (item.executable) FVP_CHECK_OK(posix::make_executable(fd, path));
  FVP_CHECK_OK(posix::sync_data(fd, path));
  return fd.close(path);
}

Status Depot::complete(std::size_t entry) {
  Wanted& wanted = entries_[entry];
  if (wanted.archive) {
    return wanted.complete ? Status{} : complete_tree(wanted, cargo_.entries[entry]);
  }
  const auto* hub = std::get_if<HubSource>(&wanted.source);
  if (hub == nullptr) return {};  // its receipt came with its publication
  const CargoEntry& cargo = cargo_.entries[entry];
  if (wanted.complete) {
    if (hub->revision == cargo.commit) return {};
    return session_->store(hub->repo).write_ref(hub->revision, cargo.commit);
  }
  FVP_CHECK_OK(session_->store(hub->repo).prepare(cargo.commit));
  Survey survey;
  survey.commit = cargo.commit;
  survey.resolved_at = cargo.resolved_at;
  survey.tree = cargo.tree;
  for (const CargoFile& file : cargo.files) survey.files.push_back(file.spec);
  for (const std::size_t file : wanted.files) {
    if (items_[file].came) continue;
    Target& target = *items_[file].target;
    FVP_TRY(const bool present, target.present());
    if (!present) {
      return fail(ErrorCode::kInternal, target.final_path() + " was removed again by somebody");
    }
    if (!target.visible()) FVP_CHECK_OK(target.adopt());
  }
  return keep_hub(*hub, survey, *session_);
}

const std::string& Depot::path(std::size_t entry) const {
  return entries_[entry].path;
}

}  // namespace fvprefetch
