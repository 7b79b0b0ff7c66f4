#!/bin/sh -eu
# Turns fresh mount, network, PID, UTS, IPC and cgroup namespaces into a machine of its own.
# Run by machine.Machine as first process of the PID namespace. In the environment: LOWER (a root file
# system, left as it is), UPPER and WORK (what is written goes there), ROOT (an empty directory), HIERARCHIES
# (of control groups, a line each: type, options, place).
# With BOOT=1 it ends as systemd, else it stays until killed; with CHROOT=1 ROOT is for chroot.
mount --make-rprivate /
mount -t overlay -o "lowerdir=$LOWER,upperdir=$UPPER,workdir=$WORK" overlay "$ROOT"
mount -t proc proc /proc
mount -t proc proc "$ROOT/proc"
mount -t sysfs sysfs "$ROOT/sys"

# Of the real kernel's settings it may change those that belong to its network namespace.
cd "$ROOT"
mount --bind proc/sys proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,bind,ro proc/sys
mount --bind sys/devices/virtual/net sys/devices/virtual/net
mount -o remount,bind,ro sys

mount -t tmpfs -o mode=755 tmpfs dev
for node in null zero full random urandom tty net/tun; do
    mkdir -p dev/net
    touch "dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
ln -s fd/0 dev/stdin
ln -s fd/1 dev/stdout
ln -s fd/2 dev/stderr
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
ip link set lo up

[ "$BOOT" = 1 ] || mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
printf %s "$HIERARCHIES" | while read -r type options place; do
    mkdir -p ".$place"
    mount -t "$type" -o "$options" cgroup ".$place"
done
hostname machine

if [ "$CHROOT" = 1 ]; then
    echo 'machine: ready'
    exec sleep infinity
fi
# Else no chroot: programs in there make namespaces of their own.
pivot_root . .
umount -l .
echo 'machine: ready'
if [ "$BOOT" = 1 ]; then
    exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
        /lib/systemd/systemd --show-status=no --log-level=warning --log-target=console
fi
# The first process buries the dead.
while :; do
    sleep 3600 &
    wait
done
