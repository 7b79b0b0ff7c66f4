"""Firewalls of VPN programs, as their public sources make them; and a tunnel that comes and goes.

Mullvad: talpid-core/src/firewall/linux.rs. NordVPN: daemon/firewall/nft. IVPN: firewall.sh of its daemon. WireGuard:
wg-quick's linux.bash, and the kill switch in wg-quick(8). Proton VPN's is no firewall but a dummy device that the
default route leads to (its NetworkManager plugin).
"""

from __future__ import annotations

from collections.abc import Callable

from tests.sandbox import Sandbox

TUNNEL = "wg0-mullvad"
IVPN_TUNNEL = "wgivpn"
DEVICES = {
    "mullvad": TUNNEL,
    "mullvad, LAN": TUNNEL,
    "nordvpn": "nordlynx",
    "hand-written": "wg0",
}
HERE, THERE, RELAY = "10.64.0.2", "10.64.0.1", "185.65.134.66"
"""Addresses of the tunnel's ends, the far one serving DNS, and of the VPN's server."""
HERE6, THERE6 = "fc00:bbbb:bbbb:bb01::2", "fc00:bbbb:bbbb:bb01::1"
_LAN = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16")
_LAN6 = ("fe80::/10", "fc00::/7")


def tunnel_up(sandbox: Sandbox, device: str) -> None:
    """What the host sends goes by the tunnel, but for what the VPN itself marks."""
    sandbox.host.sh(
        f"ip link add {device} type veth peer name eth0 netns vpn\n"
        f"ip address add {HERE}/32 peer {THERE} dev {device}; ip link set {device} up\n"
        f"ip -n vpn address add {THERE}/32 peer {HERE} dev eth0; ip -n vpn link set eth0 up\n"
        "ip -n vpn route replace default dev eth0\n"
        f"ip route replace default via {THERE} dev {device} table 51820\n"
        "ip rule add pref 100 not fwmark 0x6d6f6c65 table 51820; ip rule add pref 99 table main suppress_prefixlength 0"
    )


def tunnel_down(sandbox: Sandbox, device: str) -> None:
    """The host's default route is the LAN's again."""
    sandbox.host.sh(f"ip link delete {device}; ip rule del pref 100 || :; ip rule del pref 99 || :")


def tunnel_has_ipv6(sandbox: Sandbox, device: str) -> None:
    """Of one that is up; gone with it, but for the rules. Nobody asks for neighbours on a real one."""
    mac, peer = (
        f"$({ip} -br link show {dev} | awk '{{print $3}}')"
        for ip, dev in (("ip", device), ("ip -n vpn", "eth0"))
    )
    sandbox.host.sh(
        f"ip address add {HERE6}/128 peer {THERE6} dev {device} nodad\n"
        f"ip -n vpn address add {THERE6}/128 peer {HERE6} dev eth0 nodad; ip -n vpn -6 route replace default dev eth0\n"
        f"ip -6 neighbour replace {THERE6} lladdr {peer} dev {device} nud permanent\n"
        f"ip -n vpn -6 neighbour replace {HERE6} lladdr {mac} dev eth0 nud permanent\n"
        f"ip -6 route replace default via {THERE6} dev {device} table 51820 onlink\n"
        "ip -6 rule add pref 100 not fwmark 0x6d6f6c65 table 51820\n"
        "ip -6 rule add pref 99 table main suppress_prefixlength 0"
    )


def ipv6_down(sandbox: Sandbox) -> None:
    """Before tunnel_down()."""
    sandbox.host.sh("ip -6 rule del pref 100; ip -6 rule del pref 99")


def mullvad(device: str = "", *, lan: bool = False) -> str:
    """Connected by ``device``, or blocking; ``lan``: local network sharing."""
    dns = [f'oif "{device}" {protocol} dport 53 ip daddr {THERE} accept' for protocol in ("udp", "tcp")]
    no_dns = ["udp dport 53 reject", "tcp dport 53 reject with tcp reset"]
    out = [*(dns if device else []), *no_dns, *([f'oif "{device}" accept'] if device else [])]
    to_lan = [
        f"ip daddr {net} accept" for net in (*_LAN, "255.255.255.255", "224.0.0.0/24", "239.255.0.0/16")
    ]
    to_lan += [f"ip6 daddr {net} accept" for net in (*_LAN6, "ff01::/16", "ff02::/16", "ff05::/16")]
    to_lan = to_lan if lan else []
    asks = "udp sport 68 ip daddr 255.255.255.255 udp dport 67 accept"
    answers = "udp sport 67 udp dport 68 accept"
    asks6 = [
        f"ip6 saddr fe80::/10 udp sport 546 ip6 daddr {server} udp dport 547 accept"
        for server in ("ff02::1:2", "ff05::1:3")
    ]
    answers6 = "ip6 saddr fe80::/10 udp sport 547 ip6 daddr fe80::/10 udp dport 546 accept"
    neighbours_out = [
        f"ip6 daddr {there} icmpv6 type {kind} icmpv6 code 0 accept"
        for there, kind in (
            ("ff02::2", 133), ("ff02::1:ff00:0/104", 135), ("fe80::/10", 135), ("fe80::/10", 136),
        )
    ]  # fmt: skip
    neighbours_in = [
        *(f"ip6 saddr fe80::/10 icmpv6 type {kind} icmpv6 code 0 accept" for kind in (134, 137, 135)),
        "icmpv6 type 136 icmpv6 code 0 accept",
    ]
    chains = {
        "prerouting": [
            "type filter hook prerouting priority -199; policy accept",
            *([f'iif != "{device}" ct mark 0xf41 meta mark set 0x6d6f6c65'] if device else []),
            f"ip saddr {RELAY} udp sport 51820 meta mark set 0x6d6f6c65",
        ],
        "output": [
            "type filter hook output priority 0; policy drop",
            'oif "lo" accept', "ct mark 0xf41 accept", asks, *asks6, *neighbours_out,
            f"ip daddr {RELAY} udp dport 51820 meta mark 0x6d6f6c65 accept",
            *out, *to_lan, *([answers] if lan else []), "reject",
        ],
        "input": [
            "type filter hook input priority 0; policy drop",
            'iif "lo" accept', "ct mark 0xf41 accept", answers, answers6, *neighbours_in,
            f"ip saddr {RELAY} udp sport 51820 ct state established accept",
            *([f'iif "{device}" accept'] if device else []),
            *([f"ip daddr {HERE} drop"] if device and lan else []),
            *([f"ip saddr {net} accept" for net in _LAN] if lan else []), *([asks] if lan else []),
            *([f"ip6 saddr {net} accept" for net in _LAN6] if lan else []),
        ],
        "forward": [
            "type filter hook forward priority 0; policy drop",
            "ct mark 0xf41 accept", asks, answers, *asks6, answers6, *neighbours_out, *neighbours_in, *out,
            *([f'iif "{device}" ct state established accept'] if device else []), *to_lan, "reject",
        ],
        "mangle": ["type route hook output priority -150; policy accept"],
        "nat": [
            "type nat hook postrouting priority 100; policy accept",
            'oif != "lo" ct mark 0xf41 masquerade',
        ],
    }  # fmt: skip
    return _anew("inet mullvad", chains)


def nordvpn(device: str = "") -> str:
    """Its kill switch, connected by ``device`` or not."""
    lan = "ip daddr { 10.0.0.0/8, 169.254.0.0/16, 172.16.0.0/12, 192.168.0.0/16 }"
    no_dns = [f"{lan} {protocol} dport 53 drop" for protocol in ("tcp", "udp")]
    chains = {
        "input": [
            "type filter hook input priority filter; policy drop", 'iifname "lo" accept', "ct mark 0xe1f1 accept",
            *([f'iifname "{device}" accept'] if device else []),
        ],
        "output": [
            "type route hook output priority mangle; policy drop", 'oifname "lo" accept', "ct mark 0xe1f1 accept",
            "meta mark 0xe1f1 ct mark set meta mark accept", *no_dns,
            *([f'oifname "{device}" accept'] if device else []),
        ],
        "forward": [
            "type filter hook forward priority filter; policy drop",
            *([f'oifname "{device}" accept'] if device else []),
            *([f'iifname "{device}" ct state established,related accept'] if device else []), *no_dns,
        ],
    }  # fmt: skip
    return _anew("inet nordvpn", chains)


def hand_written(device: str = "") -> str:
    """What many pages recommend: nothing is forwarded at all."""
    chains = {
        "input": [
            "type filter hook input priority 0; policy drop",
            'iifname "lo" accept',
            "ct state established,related accept",
        ],
        "output": [
            "type filter hook output priority 0; policy drop",
            'oifname "lo" accept',
            *([f'oifname "{device}" accept'] if device else []),
            f"ip daddr {RELAY} udp dport 51820 accept",
            "udp sport 68 udp dport 67 accept",
        ],
        "forward": ["type filter hook forward priority 0; policy drop"],
    }
    return _anew("inet killswitch", chains)


def mullvad_sharing(device: str = "") -> str:
    """With local network sharing."""
    return mullvad(device, lan=True)


TABLES: dict[str, Callable[[str], str]] = {
    "mullvad": mullvad,
    "mullvad, LAN": mullvad_sharing,
    "nordvpn": nordvpn,
    "hand-written": hand_written,
}
"""What is loaded when it is connected by a device, or by none: ''."""
ENDED_BY_RULES = ("mullvad", "mullvad, LAN")
"""Those whose output and forward chains end in a rule that rejects, beside their policy."""
NAMES = {
    "mullvad": "inet mullvad",
    "mullvad, LAN": "inet mullvad",
    "nordvpn": "inet nordvpn",
    "hand-written": "inet killswitch",
}


def _anew(table: str, chains: dict[str, list[str]]) -> str:
    """One transaction, as these programs have it."""
    text = "".join(
        f"\tchain {name} {{\n" + "".join(f"\t\t{rule};\n" for rule in rules) + "\t}\n"
        for name, rules in chains.items()
    )
    return f"add table {table}\ndelete table {table}\ntable {table} {{\n{text}}}\n"


IVPN = """\
-N IVPN-IN; -N IVPN-OUT; -N IVPN-FORWARD; -N IVPN-IN-VPN; -N IVPN-OUT-VPN; -N IVPN-FORWARD-VPN
-N IVPN-OUT-DNS; -N IVPN-OUT-STAT-EXP; -N IVPN-OUT-VPN0
-A IVPN-OUT -o lo -j ACCEPT; -A IVPN-IN -i lo -j ACCEPT
-A IVPN-OUT -p udp --dport 67 -j ACCEPT; -A IVPN-IN -p udp --dport 68 -j ACCEPT
-I OUTPUT -j IVPN-OUT; -I INPUT -j IVPN-IN; -I FORWARD -j IVPN-FORWARD
-I IVPN-OUT -m cgroup --cgroup 0x4956504e -m comment --comment "IVPN Split Tunneling" -j ACCEPT
-I IVPN-IN -m mark --mark 0xca6c -m comment --comment "IVPN Split Tunneling" -j ACCEPT
-A IVPN-OUT -j IVPN-OUT-VPN0; -A IVPN-OUT -j IVPN-OUT-DNS
-A IVPN-OUT-DNS ! -d 172.16.0.1 -p udp --dport 53 -j DROP; -A IVPN-OUT-DNS ! -d 172.16.0.1 -p tcp --dport 53 -j DROP
-A IVPN-OUT -j IVPN-OUT-VPN; -A IVPN-IN -j IVPN-IN-VPN; -A IVPN-FORWARD -j IVPN-FORWARD-VPN
-A IVPN-OUT -j IVPN-OUT-STAT-EXP; -A IVPN-OUT-STAT-EXP -d 185.65.134.66 -j ACCEPT
-P INPUT DROP; -P OUTPUT DROP; -P FORWARD DROP
-A IVPN-OUT -j DROP; -A IVPN-IN -j DROP; -A IVPN-FORWARD -j DROP
"""
IVPN_CONNECTED = """\
-A IVPN-OUT-VPN -o wgivpn -j ACCEPT; -A IVPN-IN-VPN -i wgivpn -j ACCEPT
-A IVPN-FORWARD-VPN -i wgivpn -j ACCEPT; -A IVPN-FORWARD-VPN -o wgivpn -j ACCEPT
"""
IVPN_DISCONNECTED = "-F IVPN-OUT-VPN; -F IVPN-IN-VPN; -F IVPN-FORWARD-VPN\n"


def iptables(tool: str, text: str) -> str:
    """As a shell script."""
    return "\n".join(f"{tool} {line.strip()}" for line in text.replace("; ", "\n").splitlines())
