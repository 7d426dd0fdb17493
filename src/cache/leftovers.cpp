#include "cache/leftovers.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <utility>

#include "base/posix.h"

namespace fvprefetch {
namespace {

using Names = std::vector<std::string>;

constexpr unsigned kHubLockMode = 0664;
constexpr unsigned kUrlLockMode = 0666;

bool is_plain_directory(const std::string& path) {
  const auto info = posix::lstat(path);
  return info && *info && (*info)->directory;
}

// The names in `directory`; none when it is not there, or a link.
Names names_in(const std::string& directory, Leftovers& into) {
  const auto info = posix::lstat(directory);
  if (info && !(*info && (*info)->directory)) return {};
  auto names = info ? posix::list(directory) : tl::unexpected<Error>(info.error());
  if (names) return *std::move(names);
  into.unseen.push_back(std::move(names).error());
  return {};
}

Leftover single(Leftover::Kind kind, std::string path) {
  Leftover found;
  found.kind = kind;
  found.data = std::move(path);
  return found;
}

// Of a repo, or of a root of URL files: the folders that are ours alone.
struct Folders {
  std::string state;
  std::string journals;
  std::string temporaries;
  std::string locks;
  unsigned lock_mode;
  std::string probe;
};

Folders folders_of(const layout::HubRepo& repo) {
  return {repo.state(), repo.journals(), repo.temporaries(),
          repo.locks(), kHubLockMode,    repo.temporary(posix::random_tag())};
}

Folders folders_of(const layout::UrlFile& file) {
  return {file.state(), file.journals(), file.temporaries(),
          file.locks(), kUrlLockMode,    file.temporary(posix::random_tag())};
}

void set_lock(Leftover& found, const Folders& folders, std::string_view key) {
  found.lock = layout::lock_beside(folders.locks, key);
  found.lock_mode = folders.lock_mode;
}

// Journals in that folder, and such that are on their way.
Names journals_in(const Folders& folders, Leftovers& into) {
  if (!is_plain_directory(folders.state)) return {};
  return names_in(folders.journals, into);
}

void add_temporary_journal(const Folders& folders, const std::string& name, std::string_view key,
                           Leftovers& into) {
  Leftover found = single(Leftover::Kind::kTemporary, folders.journals + "/" + name);
  set_lock(found, folders, key);
  found.probe = folders.probe;
  into.found.push_back(std::move(found));
}

// Tells `take` of each journal in that folder; those that are on their way are leftovers
// themselves.
void take_journals(const Folders& folders, Leftovers& into,
                   const std::function<void(std::string_view key, std::string_view tag)>& take) {
  for (const std::string& name : journals_in(folders, into)) {
    const auto journal = layout::journal_name(name);
    if (!journal) continue;
    if (journal->temporary) {
      add_temporary_journal(folders, name, journal->key, into);
    } else {
      take(journal->key, journal->tag);
    }
  }
}

void add_temporaries(const Folders& folders, Leftovers& into) {
  if (!is_plain_directory(folders.state)) return;
  for (const std::string& name : names_in(folders.temporaries, into)) {
    if (!layout::is_temporary(name)) continue;
    Leftover found = single(Leftover::Kind::kTemporary, folders.temporaries + "/" + name);
    found.probe = folders.probe;
    into.found.push_back(std::move(found));
  }
}

// What steps without MPI left of their meetings, `folders.locks` being where they met.
void add_step_files(const Folders& folders, Leftovers& into) {
  if (!is_plain_directory(folders.state)) return;
  for (const std::string& name : names_in(folders.locks, into)) {
    if (!layout::is_step_file(name)) continue;
    Leftover found = single(Leftover::Kind::kTemporary, folders.locks + "/" + name);
    found.probe = folders.probe;
    into.found.push_back(std::move(found));
  }
}

void add_holders(const Folders& folders, Leftovers& into) {
  // The folder above is the cache's, or `.locks`, which may be a link as little.
  if (!is_plain_directory(posix::parent(folders.locks))) return;
  for (const std::string& name : names_in(folders.locks, into)) {
    // A living one is written anew every few seconds, so that it is young.
    if (const auto lease = layout::lease_name(name)) {
      const bool whole = lease->kind == layout::LeaseName::Kind::kLease;
      Leftover found = single(whole ? Leftover::Kind::kHolder : Leftover::Kind::kTemporary,
                              folders.locks + "/" + name);
      if (whole) set_lock(found, folders, lease->stem);
      found.probe = folders.probe;
      into.found.push_back(std::move(found));
    }
    const auto holder = layout::holder_name(name);
    if (!holder) continue;
    Leftover found =
        single(holder->temporary ? Leftover::Kind::kTemporary : Leftover::Kind::kHolder,
               folders.locks + "/" + name);
    set_lock(found, folders, holder->stem);
    found.probe = folders.probe;
    into.found.push_back(std::move(found));
  }
}

// Files and folders that were just being made in `directory`.
void add_unfinished(const std::string& directory, const std::string& name, const std::string& probe,
                    Leftovers& into) {
  if (!layout::is_unfinished(name)) return;
  const std::string path = std::string(directory).append("/").append(name);
  Leftover found =
      single(is_plain_directory(path) ? Leftover::Kind::kTree : Leftover::Kind::kTemporary, path);
  found.probe = probe;
  into.found.push_back(std::move(found));
}
void add_unfinished(const std::string& directory, const std::string& probe, Leftovers& into) {
  for (const std::string& name : names_in(directory, into)) {
    add_unfinished(directory, name, probe, into);
  }
}

// Those of `doctor`s, in the folder above the locks of the Hub cache, or the state of a root.
void add_probes(const std::string& directory, Leftovers& into) {
  for (const std::string& name : names_in(directory, into)) {
    const std::string path = std::string(directory).append("/").append(name);
    if (!layout::is_doctor_directory(name) || !is_plain_directory(path)) continue;
    Leftover found = single(Leftover::Kind::kProbes, path);
    found.probe = layout::doctor_directory(directory, posix::random_tag());
    into.found.push_back(std::move(found));
  }
}

}  // namespace

void find_leftovers(const layout::HubRepo& repo, Leftovers& into) {
  const auto info = posix::lstat(repo.directory());
  if (!info) return into.unseen.push_back(info.error());
  if (!*info || !(*info)->directory) return;
  const Folders folders = folders_of(repo);
  std::set<std::pair<std::string, std::string>> seen;  // blob and tag
  const auto add = [&](std::string_view blob, std::string_view tag) {
    if (!seen.emplace(blob, tag).second) return;
    Leftover found;
    found.data = repo.partial(blob, tag);
    found.journal = repo.journal(blob, tag);
    set_lock(found, folders, blob);
    found.probe = folders.probe;
    into.found.push_back(std::move(found));
  };
  for (const std::string& name : names_in(repo.blobs(), into)) {
    if (const auto partial = layout::hub_partial(name)) add(partial->stem, partial->tag);
  }
  take_journals(folders, into, add);
  add_temporaries(folders, into);
  add_holders(folders, into);
  for (const std::string& directory :
       {repo.directory(), folders.state, folders.locks, posix::parent(repo.snapshot("x")),
        posix::parent(repo.tree("x")), repo.refs()}) {
    add_unfinished(directory, folders.probe, into);
  }
}

void find_hub_leftovers(const std::string& root, const StopCheck& stop, Leftovers& into) {
  const auto names = posix::list(root);  // the root itself may be a link
  if (!names) return into.unseen.push_back(names.error());
  for (const std::string& name : *names) {
    if (stop && stop()) return;
    add_unfinished(root, name, "", into);
    if (const auto repo = layout::HubRepo::in_folder(root, name)) find_leftovers(*repo, into);
  }
  add_probes(layout::hub_locks(root), into);
  add_unfinished(layout::hub_locks(root), "", into);
}

std::optional<Leftover> tree_of(const layout::UrlFile& file, const std::string& name) {
  const auto tree = layout::unpacking_name(name);
  const std::string path = file.directory() + "/" + name;
  if (!tree || file.unpacking(tree->tag) != path) return std::nullopt;
  const Folders folders = folders_of(file);
  Leftover found = single(Leftover::Kind::kTree, path);
  found.journal = file.journal(tree->tag);
  set_lock(found, folders, file.key());
  found.probe = folders.probe;
  return found;
}

void find_leftovers(const layout::UrlFile& file, Leftovers& into) {
  const Folders folders = folders_of(file);
  const std::string directory = file.directory();
  std::set<std::string, std::less<>> seen;  // tags
  const auto add = [&](std::string_view tag) {
    if (!seen.emplace(tag).second) return;
    Leftover found;
    found.data = file.partial(tag);
    found.journal = file.journal(tag);
    set_lock(found, folders, file.key());
    found.probe = folders.probe;
    into.found.push_back(std::move(found));
  };
  if (is_plain_directory(folders.state)) {
    for (const std::string& record :
         {layout::holder_record(file.lock()), layout::lease_beside(file.lock())}) {
      Leftover holder = single(Leftover::Kind::kHolder, record);
      set_lock(holder, folders, file.key());
      holder.probe = folders.probe;
      into.found.push_back(std::move(holder));
    }
  }
  // The folder of one file may be reached through links, as the file itself is.
  if (const auto names = posix::list(directory)) {
    for (const std::string& name : *names) {
      if (auto tree = tree_of(file, name)) into.found.push_back(*std::move(tree));
      const auto tag = layout::partial_tag(name);
      if (!tag.empty() && file.partial(tag) == directory + "/" + name) add(tag);
      add_unfinished(directory, name, folders.probe, into);
    }
  } else {
    into.unseen.push_back(names.error());
  }
  for (const std::string& name : journals_in(folders, into)) {
    const auto journal = layout::journal_name(name);
    if (!journal || journal->key != file.key()) continue;
    if (journal->temporary) {
      add_temporary_journal(folders, name, journal->key, into);
    } else {
      add(journal->tag);
    }
  }
  add_unfinished(folders.state, folders.probe, into);
  add_unfinished(folders.locks, folders.probe, into);
}

namespace {

// The private data files below a root of URL files.
class UrlWalk {
 public:
  UrlWalk(std::string root, const StopCheck& stop, Leftovers& into)
      : root_(std::move(root)), stop_(stop), into_(into) {}

  struct Data {
    std::string relative;  ///< of the target, as far as its name is known
    std::string path;
    std::string tag;
    bool hashed = false;  ///< the target's name may be another one
  };

  struct Found {
    std::vector<Data> partials;
    std::vector<Data> trees;
  };

  Found run() {
    std::vector<std::string> folders{""};
    Found found;
    while (!folders.empty() && !(stop_ && stop_())) {
      const std::string folder = std::move(folders.back());
      folders.pop_back();
      const std::string directory = root_ + "/" + folder;
      const auto names = posix::list(directory);
      if (!names) {
        into_.unseen.push_back(names.error());
        continue;
      }
      for (const std::string& name : *names) {
        const std::string path = directory + name;
        if (const auto partial = layout::url_partial(name)) {
          found.partials.push_back(data(folder, *partial, path));
        } else if (const auto tree = layout::unpacking_name(name)) {
          found.trees.push_back(data(folder, *tree, path));
        } else if (layout::is_unfinished(name)) {
          add_unfinished(posix::parent(path), name, "", into_);
        } else if (may_enter(path)) {
          folders.push_back(folder + name + "/");
        }
      }
    }
    return found;
  }

 private:
  static Data data(const std::string& folder, const layout::TaggedName& name,
                   const std::string& path) {
    return {folder + std::string(name.stem), path, std::string(name.tag),
            layout::may_be_hash(name.stem)};
  }

  // Neither our own folder nor one that has such a folder: what lies there has its journals and
  // locks in that.
  [[nodiscard]] bool may_enter(const std::string& path) const {
    return path != layout::UrlFile(root_, "").state() && is_plain_directory(path) &&
           !posix::exists(layout::UrlFile(path, "").state());
  }

  std::string root_;
  const StopCheck& stop_;
  Leftovers& into_;
};

}  // namespace

void find_url_leftovers(const std::string& root, const StopCheck& stop, Leftovers& into) {
  const layout::UrlFile shared(root, "");
  const Folders folders = folders_of(shared);
  // Data first, then journals: a download that is adopted meanwhile gets a new name, and its new
  // journal would be missed the other way round.
  const UrlWalk::Found data = UrlWalk(root, stop, into).run();
  std::map<std::string, Names, std::less<>> keys;  // of journals that nothing has claimed, by tag
  take_journals(folders, into, [&keys](std::string_view key, std::string_view tag) {
    keys[std::string(tag)].emplace_back(key);
  });
  const auto journal_of = [&](std::string_view key, std::string_view tag) {
    return folders.journals + "/" + layout::journal_file(key, tag);
  };
  const auto claim = [&](const UrlWalk::Data& one) -> std::string {
    std::string key = layout::UrlFile(root, one.relative).key();
    const auto there = keys.find(one.tag);
    if (there == keys.end() || there->second.empty()) return one.hashed ? "" : key;
    Names& candidates = there->second;
    auto found = std::find(candidates.begin(), candidates.end(), key);
    // The name is hidden behind its hash; eight random digits are the same by no chance.
    if (found == candidates.end() && one.hashed) found = candidates.begin();
    if (found == candidates.end()) return key;
    key = std::move(*found);
    candidates.erase(found);
    return key;
  };
  for (const UrlWalk::Data& one : data.trees) {
    Leftover found = single(Leftover::Kind::kTree, one.path);
    std::string key = one.hashed ? "" : layout::UrlFile(root, one.relative).key();
    // Behind a hash: whose archive's download has the same eight random digits.
    const auto there = keys.find(one.tag);
    if (one.hashed && there != keys.end()) key = there->second.front();
    if (!key.empty()) {
      found.journal = journal_of(key, one.tag);
      set_lock(found, folders, key);
    }
    found.probe = folders.probe;
    into.found.push_back(std::move(found));
  }
  for (const UrlWalk::Data& one : data.partials) {
    Leftover found;
    found.data = one.path;
    if (const std::string key = claim(one); !key.empty()) {
      found.journal = journal_of(key, one.tag);
      set_lock(found, folders, key);
    }
    found.probe = folders.probe;
    into.found.push_back(std::move(found));
  }
  for (const auto& [tag, unclaimed] : keys) {
    for (const std::string& key : unclaimed) {
      Leftover found;
      found.journal = journal_of(key, tag);
      set_lock(found, folders, key);
      found.probe = folders.probe;
      into.found.push_back(std::move(found));
    }
  }
  add_temporaries(folders, into);
  add_holders(folders, into);
  Folders of_steps = folders;
  of_steps.locks = layout::steps(root);
  add_step_files(of_steps, into);
  add_holders(of_steps, into);
  add_unfinished(folders.state, folders.probe, into);
  add_unfinished(folders.locks, folders.probe, into);
  add_probes(folders.state, into);
}

}  // namespace fvprefetch
