# Functions for the guest's scripts; read with the dot command.

# Prints the value of guest.$1 on the kernel command line, or nothing.
parameter() {
    read -r arguments </proc/cmdline
    for word in $arguments; do
        case $word in "guest.$1="*) echo "${word#*=}" ;; esac
    done
}

# Writes one line to the console, with the seconds since the guest started.
say() {
    read -r seconds _ </proc/uptime
    echo "guest: [$seconds] $*" >/dev/console
}
