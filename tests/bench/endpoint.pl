# The server of endpoint.py for the test guest, whose perl has no modules. UDP is not counted here.
my ($AF_INET, $SOCK_STREAM, $SOL_SOCKET, $SO_REUSEADDR, $TCP, $NODELAY) = (2, 1, 1, 2, 6, 1);
$SIG{PIPE} = "IGNORE";
socket(my $listener, $AF_INET, $SOCK_STREAM, 0) or die "socket: $!";
setsockopt($listener, $SOL_SOCKET, $SO_REUSEADDR, pack("i", 1));
bind($listener, pack("S n C4 x8", $AF_INET, $ARGV[0], 0, 0, 0, 0)) or die "bind: $!";
listen($listener, 16) or die "listen: $!";
while (accept(my $peer, $listener)) {
    setsockopt($peer, $TCP, $NODELAY, pack("i", 1));
    my ($wanted, $total, $data) = ("", 0, "");
    while ((my $has = length($wanted)) < 2) { sysread($peer, $wanted, 2 - $has, $has) or last }
    $wanted = substr($wanted, 0, 1);
    if ($wanted eq "s") {
        while (my $got = sysread($peer, $data, 131072)) { $total += $got }
        syswrite($peer, pack("N2", int($total / 4294967296), $total % 4294967296));
    } elsif ($wanted eq "g") {
        $data = "\0" x 131072;
        1 while syswrite($peer, $data);
    } elsif ($wanted eq "e") {
        while (sysread($peer, $data, 1024)) { syswrite($peer, $data) }
    }
    close($peer);
}
