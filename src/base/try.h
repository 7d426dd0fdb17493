// Two ways to hand an Error on, private to the sources.
#pragma once

#include <exception>
#include <new>
#include <type_traits>
#include <utility>

#include "fvprefetch/error.h"

#define FVP_CONCAT_INNER(a, b) a##b
#define FVP_CONCAT(a, b) FVP_CONCAT_INNER(a, b)

/// `FVP_TRY(auto x, f());` declares x from the value of a Result or returns its error. One a line.
#define FVP_TRY(declaration, expression) \
  FVP_TRY_INNER(FVP_CONCAT(fvp_result_, __LINE__), declaration, expression)
#define FVP_TRY_INNER(result, declaration, expression)                                  \
  auto result = (expression);                                                           \
  if (!result) return ::tl::unexpected<::fvprefetch::Error>(std::move(result).error()); \
  declaration = std::move(result).value()

/// `FVP_CHECK_OK(f());` returns the error of a Status.
#define FVP_CHECK_OK(expression)                   \
  if (auto fvp_status = (expression); !fvp_status) \
  return ::tl::unexpected<::fvprefetch::Error>(std::move(fvp_status).error())

namespace fvprefetch {

/// kNoSpace: no memory can be had. Takes hardly any itself.
inline tl::unexpected<Error> out_of_memory() noexcept {
  Error error;
  error.code = ErrorCode::kNoSpace;
  error.message = "out of memory";
  try {
    error.hint = "raise the limit of memory (`ulimit -v`, or what the job may have: `--mem`)";
  } catch (const std::bad_alloc&) {
    error.hint = "ulimit -v";
  }
  return tl::unexpected<Error>(std::move(error));
}

/// Runs `f`, which returns a Result, and turns an exception into kInternal: the border behind
/// which nothing throws. Used at the four places of design section D4 and nowhere else.
template <typename F>
auto guard(F&& f) noexcept -> std::invoke_result_t<F> {
  try {
    return std::forward<F>(f)();
  } catch (const std::bad_alloc&) {
    return out_of_memory();
  } catch (const std::exception& e) {
    return fail(ErrorCode::kInternal, std::string("unexpected exception: ") + e.what());
  } catch (...) {
    return fail(ErrorCode::kInternal, "unexpected exception of unknown type");
  }
}

}  // namespace fvprefetch
