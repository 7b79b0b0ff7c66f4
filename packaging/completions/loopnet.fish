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
complete -c loopnet -n __fish_use_subcommand -a rewrite -d 'filter: any network\'s XML in, loopnet XML out'
complete -c loopnet -n __fish_use_subcommand -a convert -d 'turn a libvirt network into a loopnet network'
complete -c loopnet -n __fish_use_subcommand -a revert -d 'restore a converted network'
complete -c loopnet -n __fish_use_subcommand -a list -d 'show guests and their addresses'
complete -c loopnet -n __fish_use_subcommand -a graph -d 'draw networks, guests and addresses, as SVG'
complete -c loopnet -n __fish_use_subcommand -a ip -d 'print the address at which the host reaches a guest'
complete -c loopnet -n __fish_use_subcommand -a reserve -d 'choose a guest\'s address'
complete -c loopnet -n __fish_use_subcommand -a release -d 'give back a guest\'s address'
complete -c loopnet -n __fish_use_subcommand -a publish -d 'open a guest\'s port to others, as 8080:80'
complete -c loopnet -n __fish_use_subcommand -a unpublish -d 'close it again'
complete -c loopnet -n __fish_use_subcommand -a status -d 'networks, lo, rules, hooks: is all as it should be?'
complete -c loopnet -n __fish_use_subcommand -a plan -d 'print what sync would run; change nothing'
complete -c loopnet -n __fish_use_subcommand -a sync -d 'repair what differs'
complete -c loopnet -n __fish_use_subcommand -a watch -d 'do that whenever something changes, until stopped'
complete -c loopnet -n __fish_use_subcommand -a cleanup -d 'remove everything of loopnet from the running host'
complete -c loopnet -n __fish_use_subcommand -a doctor -d 'find what gets in the way, and what fixes it'
complete -c loopnet -n __fish_use_subcommand -a guest-setup -d 'print what a guest of a native network needs'
complete -c loopnet -n __fish_use_subcommand -a install-hooks -d 'let libvirt run loopnet\'s hooks'
complete -c loopnet -n __fish_use_subcommand -a uninstall-hooks -d 'remove them again'

set -l prefixed define rewrite convert
complete -c loopnet -n "__fish_seen_subcommand_from $prefixed" -l loop-prefix -x -d 'addresses on the host, in 127.0.0.0/8'
complete -c loopnet -n "__fish_seen_subcommand_from $prefixed" -l guest-prefix -x -d 'addresses in guests, of the same length'
complete -c loopnet -n "__fish_seen_subcommand_from $prefixed" -l mode -x -a 'mapped native' -d 'who has 127.x'
complete -c loopnet -n "__fish_seen_subcommand_from $prefixed" -l addresses -x -a 'free own' -d 'what guests may use'
complete -c loopnet -n "__fish_seen_subcommand_from $prefixed" -l ipv6 -x -a 'ula none' -d 'the IPv6 prefix'
complete -c loopnet -n '__fish_seen_subcommand_from rewrite convert' -l gateway -x -d 'host number of the router that guests see'
complete -c loopnet -n '__fish_seen_subcommand_from define convert revert' -l print-xml -d 'print the result and change nothing'
complete -c loopnet -n '__fish_seen_subcommand_from convert revert' -l print-diff -d 'print what would change'
complete -c loopnet -n '__fish_seen_subcommand_from convert revert' -l restart -d 'restart the network if it is active'
complete -c loopnet -n '__fish_seen_subcommand_from convert revert' -a '(__loopnet_networks)'
complete -c loopnet -n '__fish_seen_subcommand_from rewrite' -F
complete -c loopnet -n '__fish_seen_subcommand_from graph' -s o -l output -rF -d 'write it to this file'
complete -c loopnet -n '__fish_seen_subcommand_from list status doctor' -l json -d 'for programs'
complete -c loopnet -n '__fish_seen_subcommand_from ip' -l ipv6 -d 'its IPv6 address'
complete -c loopnet -n '__fish_seen_subcommand_from ip reserve release publish unpublish' -a '(__loopnet_guests)'
complete -c loopnet -n '__fish_seen_subcommand_from reserve' -l behind -x -a '(__loopnet_guests)' -d 'for a NIC inside this guest'
complete -c loopnet -n '__fish_seen_subcommand_from define' -l isolated -d 'guests reach only the host and each other'
complete -c loopnet -n '__fish_seen_subcommand_from publish' -l from -x -d 'only for these clients'
complete -c loopnet -n '__fish_seen_subcommand_from unpublish' -l all -d 'all published ports of the guest'
complete -c loopnet -n '__fish_seen_subcommand_from ip' -l all -d 'also print additional addresses'
complete -c loopnet -n '__fish_seen_subcommand_from reserve release' -l also -x -d 'an additional address, for it alone'
complete -c loopnet -n '__fish_seen_subcommand_from reserve release' -l shared -x -d 'an additional address that guests may hold in turn'
complete -c loopnet -n '__fish_seen_subcommand_from release' -l dead -d 'addresses of guests that libvirt no longer knows'
complete -c loopnet -n '__fish_seen_subcommand_from release' -l yes -d 'with --dead: give them back'
complete -c loopnet -n '__fish_seen_subcommand_from guest-setup' -l format -x -a 'cloud-init networkd networkmanager ifupdown sysctl smbios' -d 'for this program in the guest'
complete -c loopnet -n '__fish_seen_subcommand_from guest-setup' -l mac -x -d 'networkd, smbios: only for this NIC'
complete -c loopnet -n '__fish_seen_subcommand_from guest-setup' -l domain -x -a '(virsh -q list --all --name 2>/dev/null)' -d 'smbios: put it into this guest\'s definition'
complete -c loopnet -n '__fish_seen_subcommand_from guest-setup' -a '(__loopnet_networks)'
complete -c loopnet -n '__fish_seen_subcommand_from install-hooks uninstall-hooks' -l root -x -a '(__fish_complete_directories)' -d 'install below this directory'
