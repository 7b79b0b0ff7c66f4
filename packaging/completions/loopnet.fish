# fish completion for loopnet

function __loopnet_guests
    loopnet list 2>/dev/null | awk -F '   *' 'NR > 1 { print ($2 == "-" ? $4 : $2) "\t" $5 }'
end

function __loopnet_networks
    virsh -q net-list --all --name 2>/dev/null | string match -v ''
end

complete -c loopnet -f
complete -c loopnet -n __fish_use_subcommand -l connect -x -a 'qemu:///system lxc:///system network:///system' -d 'URI of libvirt'
complete -c loopnet -n __fish_use_subcommand -l version -d 'Print the version'
complete -c loopnet -l help -d 'Print help'

complete -c loopnet -n __fish_use_subcommand -a define -d 'define a new network with free prefixes'
complete -c loopnet -n __fish_use_subcommand -a rewrite -d 'filter: network XML in, loopnet network XML out'
complete -c loopnet -n __fish_use_subcommand -a convert -d 'make a network of libvirt\'s a loopnet network'
complete -c loopnet -n __fish_use_subcommand -a revert -d 'put a converted network back as it was'
complete -c loopnet -n __fish_use_subcommand -a list -d 'guests and their addresses'
complete -c loopnet -n __fish_use_subcommand -a graph -d 'a picture of networks, guests and addresses, as SVG'
complete -c loopnet -n __fish_use_subcommand -a ip -d 'the address at which the host reaches a guest'
complete -c loopnet -n __fish_use_subcommand -a reserve -d 'keep an address for a guest'
complete -c loopnet -n __fish_use_subcommand -a release -d 'give a guest\'s address back'
complete -c loopnet -n __fish_use_subcommand -a publish -d 'let others reach a guest\'s port, as 8080:80'
complete -c loopnet -n __fish_use_subcommand -a unpublish -d 'keep others from it again'
complete -c loopnet -n __fish_use_subcommand -a status -d 'networks, lo, rules, hooks; is all as it should be?'
complete -c loopnet -n __fish_use_subcommand -a plan -d 'what sync would run; changes nothing'
complete -c loopnet -n __fish_use_subcommand -a sync -d 'bring the host to what it should be'
complete -c loopnet -n __fish_use_subcommand -a watch -d 'the same whenever something changes, until ended'
complete -c loopnet -n __fish_use_subcommand -a cleanup -d 'take everything of loopnet off the host'
complete -c loopnet -n __fish_use_subcommand -a doctor -d 'what on this host is in the way, and the cure'
complete -c loopnet -n __fish_use_subcommand -a guest-setup -d 'what a guest of a native network needs'
complete -c loopnet -n __fish_use_subcommand -a install-hooks -d 'let libvirt run loopnet\'s hooks'
complete -c loopnet -n __fish_use_subcommand -a uninstall-hooks -d 'take them away again'

set -l prefixed define rewrite convert
complete -c loopnet -n "__fish_seen_subcommand_from $prefixed" -l loop-prefix -x -d 'the host\'s view, inside 127.0.0.0/8'
complete -c loopnet -n "__fish_seen_subcommand_from $prefixed" -l guest-prefix -x -d 'the guests\' view, of equal length'
complete -c loopnet -n "__fish_seen_subcommand_from $prefixed" -l mode -x -a 'mapped native' -d 'who has 127.x'
complete -c loopnet -n "__fish_seen_subcommand_from $prefixed" -l addresses -x -a 'free own' -d 'what guests may use'
complete -c loopnet -n "__fish_seen_subcommand_from $prefixed" -l ipv6 -x -a 'ula none' -d 'IPv6 of its own'
complete -c loopnet -n '__fish_seen_subcommand_from rewrite convert' -l gateway -x -d 'host number of the router that guests see'
complete -c loopnet -n '__fish_seen_subcommand_from define convert revert' -l print-xml -d 'print the result, do nothing'
complete -c loopnet -n '__fish_seen_subcommand_from convert revert' -l print-diff -d 'print what would change'
complete -c loopnet -n '__fish_seen_subcommand_from convert revert' -l restart -d 'restart the network if it is active'
complete -c loopnet -n '__fish_seen_subcommand_from convert revert' -a '(__loopnet_networks)'
complete -c loopnet -n '__fish_seen_subcommand_from rewrite' -F
complete -c loopnet -n '__fish_seen_subcommand_from graph' -s o -l output -rF -d 'write it there'
complete -c loopnet -n '__fish_seen_subcommand_from list status doctor' -l json -d 'for programs'
complete -c loopnet -n '__fish_seen_subcommand_from ip' -l ipv6 -d 'its IPv6 address'
complete -c loopnet -n '__fish_seen_subcommand_from ip reserve release publish unpublish' -a '(__loopnet_guests)'
complete -c loopnet -n '__fish_seen_subcommand_from reserve' -l behind -x -a '(__loopnet_guests)' -d 'for what is within this guest'
complete -c loopnet -n '__fish_seen_subcommand_from define' -l isolated -d 'guests reach the host and each other alone'
complete -c loopnet -n '__fish_seen_subcommand_from publish' -l from -x -d 'let only these in'
complete -c loopnet -n '__fish_seen_subcommand_from unpublish' -l all -d 'all of the guest\'s'
complete -c loopnet -n '__fish_seen_subcommand_from ip' -l all -d 'also what it has beside its first address'
complete -c loopnet -n '__fish_seen_subcommand_from reserve release' -l also -x -d 'one beside its first, its alone'
complete -c loopnet -n '__fish_seen_subcommand_from reserve release' -l shared -x -d 'one that guests may hold in turn'
complete -c loopnet -n '__fish_seen_subcommand_from release' -l dead -d 'all of guests that libvirt doesn\'t know any more'
complete -c loopnet -n '__fish_seen_subcommand_from release' -l yes -d 'with --dead: do it'
complete -c loopnet -n '__fish_seen_subcommand_from guest-setup' -l format -x -a 'cloud-init networkd networkmanager ifupdown sysctl smbios' -d 'for which program of the guest'
complete -c loopnet -n '__fish_seen_subcommand_from guest-setup' -l mac -x -d 'networkd, smbios: for this NIC alone'
complete -c loopnet -n '__fish_seen_subcommand_from guest-setup' -l domain -x -a '(virsh -q list --all --name 2>/dev/null)' -d 'smbios: define this guest so'
complete -c loopnet -n '__fish_seen_subcommand_from guest-setup' -a '(__loopnet_networks)'
complete -c loopnet -n '__fish_seen_subcommand_from install-hooks uninstall-hooks' -l root -x -a '(__fish_complete_directories)' -d 'install below this directory'
