# shellcheck shell=bash
# shellcheck disable=SC2034,SC2154  # used by, and set by, the scripts that source this
# What ./slurm/quickstart and ./tests/run share: packages, configure, build. Sourced, not run.
#
# Debian 12 as root. Everything here is safe to run again: what is installed stays, what is built
# is only brought up to date.

say() { printf '\n== %s\n' "$*" >&2; }
die() {
  printf 'error: %s\n' "$*" >&2
  exit 1
}

# What the program, its library and the demo hub are built from and run with.
build_packages=(
  ca-certificates ccache cmake g++ git ninja-build pkg-config python3
  libarchive-dev libcli11-dev libcurl4-openssl-dev libexpected-dev libfmt-dev libssl-dev
  nlohmann-json3-dev libopenmpi-dev openmpi-bin
  libcpp-httplib-dev zlib1g-dev libgtest-dev
)

# need_packages NAME...: installs the ones that are missing, and nothing when none is.
need_packages() {
  local missing=() package
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
      missing+=("$package")
  done
  [ ${#missing[@]} -eq 0 ] && return 0
  [ "$(id -u)" = 0 ] || die "missing packages, and not root: apt-get install ${missing[*]}"
  say "installing ${missing[*]}"
  apt-get update -qq
  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
}

# The same file with the same flags is compiled once for all build folders, wherever they lie.
export CCACHE_NOHASHDIR=1

# build_tree DIR [CMAKE OPTION...]: configures when needed and builds everything, or only $build_target.
build_tree() {
  local dir=$1
  shift
  mkdir -p "$dir"
  cmake -S "$top" -B "$dir" -G Ninja "$@" >"$dir/configure.log" 2>&1 ||
    { cat "$dir/configure.log" >&2; die "cannot configure $dir"; }
  cmake --build "$dir" --target "${build_target:-all}" >"$dir/build.log" 2>&1 ||
    { grep -E -A12 'error:|FAILED' "$dir/build.log" | head -n 200 >&2; die "cannot build $dir; all of it: $dir/build.log"; }
}

# Open MPI refuses root, and more ranks than cores, unless told; both are normal in a container.
allow_small_machines() {
  export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
  export OMPI_MCA_rmaps_base_oversubscribe=1
}
