// Error <-> JSON, as it stands in reports and travels between ranks.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "fvprefetch/error.h"

namespace fvprefetch {

/// {"code", "name", "message", "hint", "context", "subject", "retry_after_seconds", "retryable"}.
[[nodiscard]] nlohmann::ordered_json error_to_json(const Error& error);
/// The inverse; fields that are missing stay empty. `json` must be an object with a "code".
[[nodiscard]] Error error_from_json(const nlohmann::ordered_json& json);

/// What every document of ours has in place of an empty text, or of an error that there is not:
/// null.
[[nodiscard]] nlohmann::ordered_json text_or_null(const std::string& text);
[[nodiscard]] nlohmann::ordered_json error_or_null(const std::optional<Error>& error);

}  // namespace fvprefetch
