# shellcheck shell=bash disable=SC2034,SC2154
# A Debian kernel in a virtual machine, with an initramfs of what a script puts into it. Sourced; the script has
# `say`, `complain` and `give_up`, and these variables: `series` of the kernel, `cache` for what is unpacked,
# `work` for what is made. It gets `kernel`, `release` and, while a guest runs, its process `qemu`.

# seconds; some 10 without KVM on an idle machine
readonly boots_within=120

# ---------------------------------------------------------------- what is needed

kernel_package() {
    apt-cache search --names-only "^linux-image-${series/./\\.}\.[0-9].*-cloud-amd64\$" 2>/dev/null |
        awk '{print $1}' | sort -V | tail -n 1
}

# What is missing for a guest, one thing a line; of these programs, too, and of these applets of busybox.
missing_for_guest() { # programs, applets
    local tool
    ((EUID == 0)) || echo "root"
    for tool in qemu-system-x86_64 dpkg-deb apt-get ip jq $1; do
        command -v "$tool" >/dev/null || echo "$tool"
    done
    busybox_has "$2" || echo "a static busybox with ${2// /, } (busybox-static)"
    [[ $(uname -m) == x86_64 ]] || echo "an x86-64 machine"
    [[ -n $(unpacked_kernel) || -n $(kernel_package) ]] || echo "a package linux-image-$series…-cloud-amd64 in apt's lists (apt-get update?)"
}

busybox_has() { # applets
    local applet applets
    applets=$(busybox --list 2>/dev/null) || return 1
    for applet in $1 modprobe depmod cpio unxz; do
        grep -qx "$applet" <<<"$applets" || return 1
    done
}

unpacked_kernel() {
    [[ ! -d $cache ]] || find "$cache" -path "*/boot/vmlinuz-$series.*" | sort -V | tail -n 1
}

# Fetches and unpacks the kernel, unless it is there.
have_kernel() {
    local package
    if [[ -z $(unpacked_kernel) ]]; then
        package=$(kernel_package)
        say "fetching $package"
        mkdir -p "$cache"
        (cd "$cache" && apt-get -qq download "$package") >"$work/apt" 2>&1 || { cat "$work/apt" >&2; give_up "$package cannot be fetched"; }
        # Under its own name only once it is whole.
        rm -rf "$cache/unpacking"
        dpkg-deb -x "$cache/$package"_*.deb "$cache/unpacking"
        rm -f "$cache/$package"_*.deb
        rm -rf "${cache:?}/$package"
        mv "$cache/unpacking" "$cache/$package"
    fi
    kernel=$(unpacked_kernel)
    release=${kernel##*/vmlinuz-}
}

# ---------------------------------------------------------------- what is in it

# Copies a program and its libraries, to the same places.
copy_program() { # program, root
    local file
    while read -r file; do
        mkdir -p "$2${file%/*}"
        cp -L "$file" "$2$file"
    done < <(
        command -v "$1"
        ldd "$(command -v "$1")" | grep -o '/[^ ]*'
    )
}

# The modules below these directories; `modules.dep` of the package's own would do, but it is made when
# a kernel is installed, which this one is not.
copy_modules() { # root, paths below the release's directory, with globs
    local from=${kernel%/boot/*}/lib/modules/$release to=$1/lib/modules/$release file
    [[ -d $from ]] || from=${kernel%/boot/*}/usr/lib/modules/$release
    mkdir -p "$to"
    cp "$from"/modules.{builtin,order} "$to"
    while read -r file; do
        case $file in
            *.xz) busybox unxz -c "$from/$file" >"$to/$(basename "$file" .xz)" ;;
            *) cp "$from/$file" "$to" ;;
        esac
    done < <(
        cd "$from" || exit
        # shellcheck disable=SC2048,SC2086 # globs
        find ${*:2} -name '*.ko*' 2>/dev/null
    )
}

# How every guest's /init begins.
print_beginning() { # modules
    cat <<INIT
#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /run
/bin/busybox --install -s /bin
mount -t proc proc /proc; mount -t sysfs sys /sys; mount -t devtmpfs dev /dev
export PATH=/bin:/sbin:/usr/sbin:/usr/bin
depmod
for module in $*; do modprobe \$module || echo "no module \$module"; done
INIT
}

# Starts with busybox; the rest is the script's to put there.
begin_initramfs() { # root
    mkdir -p "$1/bin"
    cp "$(command -v busybox)" "$1/bin/busybox"
}

pack_initramfs() { # root
    chmod +x "$1/init"
    (cd "$1" && find . | busybox cpio -o -H newc 2>/dev/null) >"$work/initramfs"
}

# ---------------------------------------------------------------- running it

acceleration() {
    # KVM's device may be there without the processor's support.
    if [[ -w /dev/kvm ]] && grep -qwE 'vmx|svm' /proc/cpuinfo; then echo kvm; else echo tcg; fi
}

# Boots the guest in the background, with the console in the file `console`. `in_namespace` goes before
# the command: not by a function, whose end in the background its child would survive.
start_guest() { # memory in MiB, processors, more arguments of QEMU
    local accelerate
    accelerate=$(acceleration)
    say "booting $release ($accelerate)"
    : >"$work/console"
    "${in_namespace[@]}" qemu-system-x86_64 -M q35 -accel "$accelerate" -cpu max -m "$1" -smp "$2" -nodefaults -no-user-config \
        -display none -no-reboot -kernel "$kernel" -initrd "$work/initramfs" \
        -append "console=ttyS0 quiet panic=-1 net.ifnames=0" -serial "file:$work/console" "${@:3}" \
        >"$work/qemu" 2>&1 &
    qemu=$!
}

# Looks once in a while until the rest, a command, succeeds.
wait_until() { # seconds, what, command
    local deadline=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        kill -0 "$qemu" 2>/dev/null || { tail -n 20 "$work/qemu" "$work/console" >&2; give_up "QEMU has ended"; }
        ((SECONDS < deadline)) || { tail -n 20 "$work/console" >&2; give_up "waited in vain until $what"; }
        sleep 0.2
    done
}
