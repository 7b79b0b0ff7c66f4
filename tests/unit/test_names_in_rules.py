"""No set, map, chain or counter of ours is called as a word of nft's own language, in any version."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv4Network, IPv6Network

import pytest

from libvirt_loopnet.model import FREE, MAPPED, NATIVE, OWN, Publication, Published
from libvirt_loopnet.networks.new import new_network
from libvirt_loopnet.networks.parsing import parse_network
from libvirt_loopnet.ruleset.tables import make_tables

# The tokens of nft 1.0.2, 1.0.9 and 1.1.3, and what was seen of 1.1.7, as their parsers name them in errors. Newer
# ones take some of these for names, where they can't be meant otherwise.
WORDS = """
a-rwnd abort accept ackseq add addr ah all arp asconf asconf-ack auto-merge avgpkt bridge burst bypass bytes
cfi cgroup cgroupv2 chain chains checksum chunk classid code colon comma comment comp constant continue
cookie-ack cookie-echo count counter counters cpi cpu create csumcov ct cum-tsn-ack cwr daddr data day dccp
define dei delete describe destroy device devices direction dnat doff dport drop dscp dst dup dynamic echo
ecn ecne element elements eol error esp ether event exists expectation expiration expires export exthdr
fanout fastopen fib flags flow flowlabel flowtable flowtables flush forward-tsn frag frag-off fully-random
fwd gateway gc-interval geneve get goto gre gretap group handle hbh hdrlength heartbeat heartbeat-ack helper
helpers hlen hook hooks hoplimit hour htype ibriport ibrname icmp icmpv6 icmpx id igmp iif iifgroup iifname
iiftype import in inc include index inet init init-ack init-tag initial-tsn insert interval ip ip6 ipsec
jhash json jump junk l3proto label last last-entry left length level limit limits list ll log lowest-tsn
lsrr map maps mark masquerade max-delay md5sig memory meta meter meters mh minute missing mod monitor
more-fragments mptcp mrt mss mtu name netdev never new-cum-tsn newline nexthdr nexthop nftrace nh nop
notrack num num-dup-tsns num-gap-ack-blocks num-inbound-streams num-outbound-streams number numgen obriport
obrname offload offset oif oifgroup oifname oiftype operation option options original osf out over p packets
param-problem pcp performance persistent pkttype plen policy port position ppid prefix priority proto-dst
proto-src protocol ptr ptype queue queue-threshold quota quotas ra random rate redefine redirect reject
rename replace reply reqid reserved reserved2 reset return right rr rt rt0 rt2 rtclassid rule rules ruleset
sack sack-permitted sack0 sack1 sack2 sack3 saddr sctp secmark secmarks second seed seg-left semicolon seq
seqno set sets shutdown shutdown-ack shutdown-complete sid size skgid skuid snaplen snat socket spi spnum
sport srh ssn ssrr state status stream string subtype symhash synproxy synproxys table tables taddr tag tcp
th time timeout timestamp to tproxy trace transparent tsecr tsn tsval ttl tunnel tunnels type typeof udp udplite
undefine until update urgptr used value version vlan vm vmap vni vtag vxlan week wildcard window with wscale xml xt
zone
"""


@pytest.mark.parametrize("mode", [MAPPED, NATIVE])
@pytest.mark.parametrize("addresses", [FREE, OWN])
def test_names(mode: str, addresses: str) -> None:
    loop, ipv6 = IPv4Network("127.1.0.0/24"), IPv6Network("fd12:3456:789a:100::/64")
    guests = loop if mode == NATIVE else IPv4Network("10.127.1.0/24")
    xml = new_network("n", loop, guests, mode, addresses, ipv6=ipv6)
    network = parse_network(xml)
    assert network
    network = network._replace(bridge="virbr1", bridge_mac="52:54:00:00:00:01")
    published = [Published("n", 2, Publication("tcp", IPv4Address("0.0.0.0"), 8080, 80))]
    rules = make_tables([network], [], [], published, is_ipv6_router=True, published6=published)
    names = set(re.findall(r"^\s*(?:table \w+|chain|set|map|counter) (\S+)", rules, re.MULTILINE))
    assert {"loopnet", "neighbours", "reserved_addresses"} <= names
    assert names.isdisjoint(WORDS.split())
