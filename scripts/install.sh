#!/usr/bin/env bash
# Installs what a make target needs and the machine lacks, on Debian and Ubuntu; says what it installs. On
# another system it names the packages. Silent when all is there.
#   scripts/install.sh demo|test|bench
set -euo pipefail
PATH="$PATH:/usr/sbin:/sbin:$HOME/.cargo/bin"

mode=${1:-}
case $mode in
demo | test | bench) ;;
*)
    echo "usage: scripts/install.sh demo|test|bench" >&2
    exit 2
    ;;
esac

has() { command -v "$1" >/dev/null 2>&1; }

# The same places as `demo::postgres` looks in.
postgres_bindir() {
    local dir
    if [ -n "${PG_BINDIR:-}" ]; then
        [ -x "$PG_BINDIR/initdb" ] && [ -x "$PG_BINDIR/postgres" ] && echo "$PG_BINDIR"
        return
    fi
    for dir in "$(pg_config --bindir 2>/dev/null || true)" /usr/lib/postgresql/*/bin; do
        if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ]; then
            echo "$dir"
            return
        fi
    done
}

has_program() { has "$1" || [ -x "$(postgres_bindir)/$1" ]; }

# As `integration/page/browser.rs` looks for it.
has_chromium() {
    if [ -n "${KEYWAY_CHROMIUM:-}" ]; then
        [ -x "$KEYWAY_CHROMIUM" ]
    else
        has chromium || has chromium-browser || has google-chrome
    fi
}

has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return
    compgen -G '/usr/lib/llvm-*/lib/libclang*.so*' >/dev/null && return
    compgen -G '/usr/lib/*/libclang*.so*' >/dev/null && return
    compgen -G '/usr/lib*/libclang*.so*' >/dev/null
}

# Of Debian's packages, as far as they are known before they are read anew.
newest_llvm() {
    local known
    known=$(apt-cache pkgnames llvm- 2>/dev/null | grep -xE 'llvm-(19|[2-9][0-9])' | sort -V | tail -n 1) || true
    echo "${known:-llvm-19}"
}

has_profdata() { "$(dirname "$0")/pgo.sh" tool >/dev/null 2>&1; }

# lack WHAT DEBIAN FEDORA ARCH: packages for each system, separated by spaces.
missing=()
debian=()
fedora=()
arch=()
lack() {
    missing+=("$1")
    debian+=($2)
    fedora+=($3)
    arch+=($4)
}

if [ -n "${PG_BINDIR:-}" ] && [ -z "$(postgres_bindir)" ]; then
    echo "PG_BINDIR is $PG_BINDIR, which holds no initdb and postgres" >&2
    exit 1
fi
[ -n "$(postgres_bindir)" ] ||
    lack "PostgreSQL's server" "postgresql" "postgresql-server" "postgresql"
has_program psql || lack "psql" "postgresql-client" "postgresql" "postgresql-libs"
has cc || lack "a C compiler" "build-essential" "gcc" "base-devel"
{ has clang && has_libclang; } || lack "libclang" "clang libclang-dev" "clang-devel" "clang"
if [ "$mode" != demo ]; then
    # Debian has it in the server's package.
    has_program pgbench || lack "pgbench" "postgresql postgresql-contrib" "postgresql-contrib" "postgresql"
fi
if [ "$mode" != demo ]; then
    # Counts the instructions of benches/gate.py and benches/instructions.py.
    has valgrind || lack "valgrind" "valgrind" "valgrind" "valgrind"
fi
if [ "$mode" = test ]; then
    python3 -c 'import ensurepip, venv' >/dev/null 2>&1 ||
        lack "Python 3 with venv" "python3 python3-venv" "python3" "python"
    has node || lack "Node.js" "nodejs" "nodejs" "nodejs"
    has npm || lack "npm" "npm" "npm" "npm"
    # The run time alone also runs a source file.
    has java || lack "Java" "default-jre-headless" "java-latest-openjdk-headless" "jre-openjdk-headless"
    [ -e /usr/share/java/postgresql.jar ] ||
        lack "PostgreSQL's JDBC driver" "libpostgresql-jdbc-java" "postgresql-jdbc" "postgresql-jdbc"
    # The page is tested in it; without a font it would draw no text.
    has_chromium || lack "Chromium" "chromium fonts-dejavu-core" "chromium dejavu-sans-fonts" "chromium ttf-dejavu"
fi
if [ "$mode" = bench ]; then
    has python3 || lack "Python 3" "python3" "python3" "python"
    has strace || lack "strace" "strace" "strace" "strace"
    has pgbouncer || lack "PgBouncer" "pgbouncer" "pgbouncer" "pgbouncer"
    has haproxy || lack "HAProxy" "haproxy" "haproxy" "haproxy"
    # Merges recorded profiles; as new as the format that rustc writes.
    has_profdata || lack "llvm-profdata" "$(newest_llvm)" "llvm" "llvm"
fi

# Each step says `|| return`: `set -e` is off in a function whose status is asked for.
install_on_debian() {
    local sudo=() packages=()
    mapfile -t packages < <(printf '%s\n' "${debian[@]}" | sort -u)
    if [ "$(id -u)" -ne 0 ]; then
        if ! has sudo; then
            echo "as root: apt-get install ${packages[*]}" >&2
            return 1
        fi
        sudo=(sudo)
    fi
    local apt=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get)
    echo "installing ${packages[*]}"
    "${apt[@]}" update -qq || return
    if [[ " ${packages[*]} " == *" postgresql "* ]] && [ ! -e /etc/postgresql-common/createcluster.conf ]; then
        # The package would create a cluster and start it; ours are enough. Debian's own switch for that.
        "${apt[@]}" install -y -qq --no-install-recommends postgresql-common >/dev/null || return
        echo "setting create_main_cluster = false in /etc/postgresql-common/createcluster.conf"
        "${sudo[@]}" sed -i -E 's/^#?\s*create_main_cluster\b.*/create_main_cluster = false/' \
            /etc/postgresql-common/createcluster.conf || return
    fi
    "${apt[@]}" install -y -qq --no-install-recommends "${packages[@]}" >/dev/null || return
    for service in pgbouncer haproxy; do
        # Benchmarks run their own; the packages start one each.
        if [[ " ${packages[*]} " == *" $service "* ]] && [ -d /run/systemd/system ]; then
            "${sudo[@]}" systemctl disable --quiet --now "$service" || return
        fi
    done
}

status=0
if [ ${#missing[@]} -gt 0 ]; then
    id=$(. /etc/os-release 2>/dev/null && echo "${ID:-} ${ID_LIKE:-}") || id=
    case " $id " in
    *" debian "* | *" ubuntu "*) install_on_debian || status=1 ;;
    *)
        {
            printf 'missing:'
            printf ' %s;' "${missing[@]}"
            printf '\ninstall, by system:\n'
            echo "  Debian, Ubuntu  apt-get install ${debian[*]}"
            echo "  Fedora, RHEL    dnf install ${fedora[*]}"
            echo "  Arch            pacman -S ${arch[*]}"
        } >&2
        status=1
        ;;
    esac
fi
if ! has cargo; then
    echo "missing: Rust; install it as https://rustup.rs says, then start a new shell" >&2
    status=1
fi
exit $status
