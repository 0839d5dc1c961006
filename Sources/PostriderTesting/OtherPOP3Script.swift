/// How the other POP3 servers are set up and started, inside of namespaces of their own.
///
/// Arguments: the folder of the packages, the server's folder, its port (for `cyrus-deliver` the account), which server
/// (for `cyrus-deliver` the message's file behind it). Both accounts have the same user id, so that mail is put there
/// without asking which.
enum OtherPOP3Script {
  static let text = #"""
    set -eu
    cache=$1 outside=$2 port=$3 kind=$4
    mount --make-rprivate /
    mkdir -p "$outside"/{etc,mail,home,run,var/popa3d,cyrus}
    # What lies above is closed to the servers' users.
    mount --bind "$outside" /mnt
    own=/mnt
    if [ "$kind" != cyrus-deliver ]; then
      accounts='anna bob popa3d courier cyrus'
      for file in passwd group shadow; do
        grep -vE "^(${accounts// /|}):" "/etc/$file" >"$own/etc/$file"
      done
      chmod 600 "$own/etc/shadow"
      hash=$(openssl passwd -6 'correct horse')
      for account in $accounts; do
        case $account in anna | bob) id=4001 ;; *) id=4002 ;; esac
        echo "$account:x:$id:$id::/mnt/home/$account:/bin/sh" >>"$own/etc/passwd"
        echo "$account:x:$id:" >>"$own/etc/group"
        echo "$account:$hash:19000:0:99999:7:::" >>"$own/etc/shadow"
        mkdir -p "$own/home/$account"/Maildir/{new,cur,tmp}
        chown -R "$id:$id" "$own/home/$account"
      done
      touch "$own"/mail/{anna,bob}
      chown 4001:4001 "$own"/mail/{anna,bob}
      chmod 600 "$own"/mail/{anna,bob}
      chmod 1777 "$own/mail"
      cp -r "$cache"/etc/{pam.d,courier} "$own/etc/"
      for service in popa3d pop3 pop gnu-pop3d pop3d; do
        printf '%s required pam_unix.so\n' auth account >"$own/etc/pam.d/$service"
        echo 'session required pam_permit.so' >>"$own/etc/pam.d/$service"
      done
    fi
    mount -t overlay overlay -o "lowerdir=$cache/usr:/usr" /usr
    mount -t overlay overlay -o "lowerdir=$own/etc:/etc" /etc
    mount -t overlay overlay -o "lowerdir=$own/var:/var/lib" /var/lib
    mount --bind "$own/mail" /var/mail
    mount -t tmpfs tmpfs /run
    mkdir -p /run/courier/authdaemon /run/cyrus
    tcp=(couriertcpd -address=127.0.0.1 -nodnslookup -noidentlookup -maxprocs=40 -maxperip=40 "$port")
    cyrus=/usr/lib/cyrus/bin
    case $kind in
      popa3d) exec "${tcp[@]}" /usr/sbin/popa3d ;;
      mailutils)
        printf '%s\n' 'mode daemon;' 'foreground yes;' 'max-children 40;' "server 127.0.0.1:$port { };" \
          'logging { syslog no; };' 'mailbox { mailbox-type mbox; mail-spool /var/mail; };' >"$own/pop3d.conf"
        exec /usr/sbin/pop3d --no-site-config --config-file "$own/pop3d.conf" --foreground --daemon=20
        ;;
      courier)
        printf '%s\n' authmodulelist=authuserdb authmodulelistorig=authuserdb daemons=2 \
          authdaemonvar=/run/courier/authdaemon DEBUG_LOGIN=0 DEFAULTOPTIONS= >"$own/etc/courier/authdaemonrc"
        chmod 700 "$own/etc/courier"
        for account in anna bob; do
          challenge=$(printf 'correct horse\ncorrect horse\n' | userdbpw -hmac-md5)
          printf '%s\tuid=4001|gid=4001|home=/mnt/home/%s|shell=/bin/sh|systempw=%s|hmac-md5pw=%s\n' \
            "$account" "$account" "$(openssl passwd -6 'correct horse')" "$challenge"
        done >"$own/etc/courier/userdb"
        chmod 600 "$own/etc/courier/userdb"
        makeuserdb -f "$own/etc/courier/userdb"
        authdaemond start
        POP3AUTH='PLAIN LOGIN CRAM-MD5' exec "${tcp[@]}" /usr/lib/courier/courier/courierpop3login \
          /usr/lib/courier/courier/courierpop3d Maildir
        ;;
      cyrus)
        cat >"$own/imapd.conf" <<CONFIGURATION
    configdirectory: /mnt/cyrus
    partition-default: /mnt/cyrus/spool
    defaultpartition: default
    sasl_pwcheck_method: auxprop
    sasl_auxprop_plugin: sasldb
    sasl_sasldb_path: /mnt/sasldb2
    sasl_mech_list: PLAIN LOGIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256
    allowplaintext: yes
    autocreate_quota: 0
    autocreate_post: yes
    lmtpsocket: /mnt/cyrus/lmtp
    servername: localhost
    sievedir: /mnt/cyrus/sieve
    CONFIGURATION
        cat >"$own/cyrus.conf" <<CONFIGURATION
    START { recover cmd="$cyrus/ctl_cyrusdb -C /mnt/imapd.conf -r" }
    SERVICES {
      pop3 cmd="$cyrus/pop3d -C /mnt/imapd.conf" listen="127.0.0.1:$port" prefork=0 maxchild=50
      lmtp cmd="$cyrus/lmtpd -C /mnt/imapd.conf" listen="/mnt/cyrus/lmtp" prefork=0 maxchild=5
    }
    EVENTS { }
    CONFIGURATION
        mkdir -p "$own"/cyrus/{spool,proc,lock}
        for account in anna bob; do
          printf 'correct horse' | saslpasswd2 -p -c -f "$own/sasldb2" -u localhost "$account"
        done
        chown -R cyrus:cyrus "$own/cyrus" "$own/sasldb2" "$own/imapd.conf" /run/cyrus
        exec "$cyrus/master" -C /mnt/imapd.conf -M /mnt/cyrus.conf -p /mnt/cyrus/master.pid -D
        ;;
      cyrus-deliver)
        exec setpriv --reuid=cyrus --regid=cyrus --clear-groups "$cyrus/deliver" -C /mnt/imapd.conf "$port" <"$own/$5"
        ;;
    esac
    """#
}
