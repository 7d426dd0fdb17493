// What libarchive does not tell of a zip, or passes over.
//
// A zip lists its members in a directory at its end, and says most of it once more in front of each
// member; libarchive takes some from here and some from there. Where both do not agree, or more
// lies in the file than the directory tells of, somebody else's program would unpack something
// else. It also takes a FIFO for a file, and does not compare the CRC-32 of a link's text.
#pragma once

#include <string>

#include "base/digest.h"
#include "base/posix.h"
#include "fvprefetch/error.h"

namespace fvprefetch {

/// Looks through the directory of the zip `file`, which is called `name` in messages, and at the
/// head of each member. kIntegrity: a member is a device, a FIFO or a socket; its name, size or
/// CRC-32 differs in the places that tell it; it overlaps another; the text of a link is broken;
/// another zip lies in front, or anything behind the end; the directory cannot be read. Reads some
/// 100 bytes for each member and the text of each link. Blocks; `must_stop` may be empty.
[[nodiscard]] Status check_zip(const posix::Fd& file, const std::string& name,
                               const StopCheck& must_stop);

}  // namespace fvprefetch
