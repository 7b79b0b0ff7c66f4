# Functions for the guest's scripts; read with the dot command.

# Prints the value of guest.$1 on the kernel command line, or nothing.
parameter() {
    for word in $(cat /proc/cmdline); do
        case $word in "guest.$1="*) echo "${word#*=}" ;; esac
    done
}

# Writes one line to the console, with the seconds since the guest started.
say() {
    read -r seconds _ </proc/uptime
    echo "guest: [$seconds] $*" >/dev/console
}
