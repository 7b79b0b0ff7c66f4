#!/bin/sh -eu
# Turns fresh mount, network, PID, UTS and IPC namespaces into the sandbox's host and its LAN.
# Run by holder.Holder as first process of the PID namespace; ends as init.py. In the
# environment: ROUTER, HOST (addresses), LENGTH (of the LAN prefix), INTERNET (an address),
# HERE (this directory), CHECKOUT (to be shown as /run/checkout, if not empty),
# and BRIDGE_NF, IP_FORWARD, RP_FILTER, IP_RULE, each 0 or 1.

# --- File systems: what is written goes to memory; the real machine gets not even a directory.
# The first without --no-mtab would make /run/mount on the real machine.
mount --no-mtab -t tmpfs -o mode=755 tmpfs /run
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mkdir -p /run/bin /run/home /run/lock /run/libvirt /run/sandbox/guests /run/sandbox/var \
    /run/sandbox/work /run/sandbox/etc /run/sandbox/dev

mount -t overlay -o lowerdir=/var,upperdir=/run/sandbox/var,workdir=/run/sandbox/work overlay /var
for directory in lib/libvirt lib/misc log/libvirt cache/libvirt; do
    mkdir -p "/var/$directory"
    mount -t tmpfs -o mode=755 tmpfs "/var/$directory"
done
rm -rf /var/lib/libvirt-loopnet
mkdir -p /var/lib/libvirt/dnsmasq # as libvirt's package has it

# A copy and not an overlay: programs rename files here and watch them with inotify.
cp -a /etc/. /run/sandbox/etc
mount --bind /run/sandbox/etc /etc
rm -rf /etc/libvirt/hooks /etc/libvirt/qemu /etc/libvirt/storage /etc/libvirt/secrets \
    /etc/libvirt-loopnet.conf /etc/hosts /etc/resolv.conf
mkdir -p /etc/libvirt/hooks /etc/libvirt/qemu/networks/autostart
printf '127.0.0.1\tlocalhost\n127.0.1.1\tlaptop\n' >/etc/hosts
printf 'nameserver %s\n' "$INTERNET" >/etc/resolv.conf

# No kvm, and a /dev/log of our own.
dev=/run/sandbox/dev
mkdir -p $dev/net $dev/pts $dev/shm
for node in null zero full random urandom tty net/tun; do
    touch "$dev/$node"
    mount --bind "/dev/$node" "$dev/$node"
done
mount --bind /dev/pts $dev/pts
mount -t tmpfs tmpfs $dev/shm
ln -s pts/ptmx $dev/ptmx
ln -s /proc/self/fd $dev/fd
ln -s /proc/self/fd/0 $dev/stdin
ln -s /proc/self/fd/1 $dev/stdout
ln -s /proc/self/fd/2 $dev/stderr
mount --rbind $dev /dev

if [ -n "$CHECKOUT" ]; then
    mkdir -p /run/checkout
    mount --bind "$CHECKOUT" /run/checkout
fi

echo laptop >/proc/sys/kernel/hostname

# --- The LAN: one router, which is also the internet. It knows the host's address and no other.
ip link set lo up
ip netns add lan
ip link add uplink0 type veth peer name lan0 netns lan
ip -n lan link set lo up
ip -n lan link set lan0 up
ip -n lan address add "$INTERNET/32" dev lo
ip -n lan address add "$ROUTER/32" dev lan0
ip -n lan route add "$HOST/32" dev lan0
ip netns exec lan sh -c 'echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
    echo 0 >/proc/sys/net/ipv4/conf/lan0/rp_filter'

# --- The host. A new namespace starts with some of the real machine's settings: set them all.
sysctl=/proc/sys/net/ipv4
echo "$IP_FORWARD" >$sysctl/ip_forward
for interface in all default uplink0 lo; do
    echo "$RP_FILTER" >$sysctl/conf/$interface/rp_filter
    echo 0 >$sysctl/conf/$interface/route_localnet
done
if [ -e /proc/sys/net/bridge/bridge-nf-call-iptables ]; then
    echo "$BRIDGE_NF" >/proc/sys/net/bridge/bridge-nf-call-iptables
elif [ "$BRIDGE_NF" = 1 ]; then
    echo 'bridge_nf needs the kernel module br_netfilter: modprobe br_netfilter' >&2
    exit 1
fi
# No waiting until its IPv6 address is known to be nobody else's.
echo 0 >/proc/sys/net/ipv6/conf/uplink0/accept_dad
ip address add "$HOST/$LENGTH" dev uplink0
ip link set uplink0 up
ip route add default via "$ROUTER" dev uplink0
if [ "$IP_RULE" = 1 ]; then
    # As wg-quick does. Any custom rule makes the kernel keep tables local and main apart.
    ip route add default via "$ROUTER" dev uplink0 table 51820
    ip rule add not fwmark 51820 table 51820
    ip rule add table main suppress_prefixlength 0
fi

ip netns exec lan /usr/bin/python3 -I "$HERE/internet.py" "$INTERNET" </dev/null
exec /usr/bin/python3 -I "$HERE/init.py"
