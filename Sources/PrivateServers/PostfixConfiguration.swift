/// The files `main.cf` and `master.cf` of a ``PrivatePostfix`` (version 3.6 or newer).
struct PostfixConfiguration: Sendable {
  let data: DataDirectory
  let dovecot: PrivateDovecot
  let domain: String
  let certificate: TestAuthority.Leaf
  let options: PrivatePostfix.Options
  let ports: [Int]
  let layout: PostfixLayout

  /// Writes both files and the map of senders.
  func write() throws {
    let folder = layout.folder + "/etc"
    let lines = settings.merging(options.settings) { $1 }.sorted { $0.key < $1.key }.map { "\($0) = \($1)\n" }
    try Files.write(lines.joined(), to: folder + "/main.cf", mode: 0o644)
    try Files.write(services, to: folder + "/master.cf", mode: 0o644)
    // The owner of each address is the login of the same name.
    try Files.write("/^(.*)$/ ${1}\n", to: folder + "/senders", mode: 0o644)
  }

  private var settings: [String: String] {
    paths.merging(access) { $1 }.merging(delivery) { $1 }
  }

  private var paths: [String: String] {
    [
      "compatibility_level": "3.6",
      "config_directory": layout.configuration, "queue_directory": layout.queue, "data_directory": layout.state,
      "maillog_file": "/dev/stdout",
      "inet_interfaces": options.host, "inet_protocols": "ipv4",
      "myhostname": "mail.\(domain)", "mydomain": domain, "myorigin": domain,
      "smtpd_banner": "$myhostname ESMTP Postfix (\(layout.greetingMark))",
      // Nothing outside this machine is asked.
      "disable_dns_lookups": "yes", "smtpd_peername_lookup": "no",
    ]
  }

  private var access: [String: String] {
    var settings = [
      // The local host is not trusted: everybody has to log in.
      "mynetworks": "",
      "smtpd_tls_security_level": "may", "smtpd_tls_auth_only": "yes",
      "smtpd_tls_cert_file": data.aliased(certificate.certificatePath),
      "smtpd_tls_key_file": data.aliased(certificate.keyPath),
      "smtpd_sasl_auth_enable": "yes", "smtpd_sasl_type": "dovecot", "smtpd_sasl_path": dovecot.authSocketPath,
      "smtpd_sasl_security_options": "noanonymous",
      "smtpd_relay_restrictions": "permit_sasl_authenticated, reject",
      "smtpd_recipient_restrictions": "permit_sasl_authenticated, reject",
      "smtpd_client_connection_count_limit": "0", "smtpd_error_sleep_time": "0",
      "message_size_limit": String(options.maximumMessageSize),
    ]
    if options.checksSender {
      settings["smtpd_sender_login_maps"] = "regexp:\(layout.configuration)/senders"
      settings["smtpd_sender_restrictions"] = "reject_sender_login_mismatch"
    }
    return settings
  }

  private var delivery: [String: String] {
    let outside =
      switch options.outside {
      // smtpd would refuse what goes to `error`. The mailbox agent does not know the address and bounces it.
      case .bounced: "virtual:"
      case .refused: "error:5.1.2 the sandbox delivers to \(domain) only"
      case .discarded: "discard:"
      }
    return [
      "mydestination": "", "local_recipient_maps": "", "alias_maps": "", "alias_database": "", "relay_domains": "",
      "local_transport": "error:5.1.1 there is no local delivery",
      "relay_transport": "error:5.7.1 there is no relaying",
      "default_transport": outside, "in_flow_delay": "0",
      "virtual_mailbox_domains": domain, "virtual_mailbox_base": data.aliased(dovecot.mailPath),
      "virtual_mailbox_maps": "\(layout.mapType):\(layout.configuration)/mailboxes",
      "virtual_uid_maps": "static:\(data.user.userID)", "virtual_gid_maps": "static:\(data.user.groupID)",
      "virtual_minimum_uid": "1", "virtual_mailbox_limit": "0",
    ]
  }

  /// Everything a queue needs and no client: there is no `smtp` and no `pickup`. Nothing runs in a chroot.
  private var services: String {
    """
    \(options.host):\(ports[0]) inet n - n - - smtpd
    \(options.host):\(ports[1]) inet n - n - - smtpd
      -o smtpd_tls_wrappermode=yes
    cleanup unix n - n - 0 cleanup
    qmgr unix n - n 300 1 qmgr
    tlsmgr unix - - n 1000? 1 tlsmgr
    rewrite unix - - n - - trivial-rewrite
    bounce unix - - n - 0 bounce
    defer unix - - n - 0 bounce
    trace unix - - n - 0 bounce
    verify unix - - n - 1 verify
    flush unix n - n 1000? 0 flush
    proxymap unix - - n - - proxymap
    error unix - - n - - error
    retry unix - - n - - error
    discard unix - - n - - discard
    virtual unix - n n - - virtual
    anvil unix - - n - 1 anvil
    showq unix n - n - - showq
    postlog unix-dgram n - n - 1 postlogd

    """
  }
}
