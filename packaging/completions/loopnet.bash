# bash completion for loopnet

_loopnet() {
    local cur prev words cword
    _init_completion -n : || return

    local i verb=
    for ((i = 1; i < cword; i++)); do
        case ${words[i]} in
        --connect) ((i++)) ;;
        -*) ;;
        *) verb=${words[i]} && break ;;
        esac
    done

    case $prev in
    --connect)
        COMPREPLY=($(compgen -W 'qemu:///system lxc:///system network:///system' -- "$cur"))
        __ltrim_colon_completions "$cur"
        return
        ;;
    --mode)
        COMPREPLY=($(compgen -W 'mapped native' -- "$cur"))
        return
        ;;
    --output | -o)
        _filedir
        return
        ;;
    --format)
        COMPREPLY=($(compgen -W 'cloud-init networkd networkmanager ifupdown sysctl smbios' -- "$cur"))
        return
        ;;
    --domain)
        COMPREPLY=($(compgen -W "$(virsh -q list --all --name 2>/dev/null)" -- "$cur"))
        return
        ;;
    --root)
        _filedir -d
        return
        ;;
    --addresses)
        COMPREPLY=($(compgen -W 'free own' -- "$cur"))
        return
        ;;
    --ipv6)
        COMPREPLY=($(compgen -W 'ula none' -- "$cur"))
        return
        ;;
    --loop-prefix | --guest-prefix | --gateway | --mac | --also | --shared) return ;;
    esac

    local options= candidates=
    case $verb in
    '')
        options='--connect --help --version'
        candidates='define rewrite convert revert list graph ip reserve release publish unpublish
            status plan sync watch cleanup doctor guest-setup install-hooks uninstall-hooks'
        ;;
    define) options='--loop-prefix --guest-prefix --mode --addresses --ipv6 --isolated --print-xml' ;;
    rewrite)
        options='--loop-prefix --guest-prefix --mode --addresses --ipv6 --gateway'
        [[ $cur == -* ]] || _filedir xml
        ;;
    convert)
        options='--print-xml --print-diff --restart --loop-prefix --guest-prefix --mode --addresses --ipv6 --gateway'
        candidates=$(virsh -q net-list --all --name 2>/dev/null)
        ;;
    revert)
        options='--print-xml --print-diff --restart'
        candidates=$(virsh -q net-list --all --name 2>/dev/null)
        ;;
    list | status | doctor) options='--json' ;;
    graph) options='--output' ;;
    ip)
        options='--all --ipv6'
        candidates=$(_loopnet_guests)
        ;;
    reserve)
        options='--also --shared --behind'
        candidates=$(_loopnet_guests)
        ;;
    release)
        options='--also --shared --dead --yes'
        candidates=$(_loopnet_guests)
        ;;
    guest-setup)
        options='--format --mac --domain'
        candidates=$(virsh -q net-list --all --name 2>/dev/null)
        ;;
    publish)
        options='--from'
        candidates=$(_loopnet_guests)
        ;;
    unpublish)
        options='--all'
        candidates=$(_loopnet_guests)
        ;;
    plan | sync | watch | cleanup) ;;
    install-hooks | uninstall-hooks) options='--root' ;;
    esac

    [[ -z $verb ]] || options+=' --help'
    if [[ $cur == -* ]]; then
        COMPREPLY=($(compgen -W "$options" -- "$cur"))
    elif [[ -n $candidates ]]; then
        COMPREPLY+=($(compgen -W "$candidates" -- "$cur"))
        __ltrim_colon_completions "$cur" # of MAC addresses
    fi
} &&
    complete -F _loopnet loopnet

_loopnet_guests() {
    loopnet list 2>/dev/null | awk -F '   *' 'NR > 1 { print ($2 == "-" ? $4 : $2) }'
}
