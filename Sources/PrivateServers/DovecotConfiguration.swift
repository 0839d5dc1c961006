import FoundationEssentials

/// The configuration file of a ``PrivateDovecot`` (version 2.3).
///
/// Names paths through the runtime directory, which has no blanks, quotes or percent signs.
struct DovecotConfiguration: Sendable {
  let data: DataDirectory
  let options: PrivateDovecot.Options
  let ports: [Int]
  let certificate: TestAuthority.Leaf

  /// Tells this server's greeting from that of another one that took the port first.
  var greetingMark: String { "\(data.runtimePath.split(separator: "-").last ?? "")-\(options.name)" }

  private var runtime: String { "\(data.runtimePath)/\(options.name)" }
  private var folder: String { "\(data.alias)/\(options.name)" }

  var text: String {
    """
    protocols = pop3
    listen = \(options.host)
    base_dir = \(runtime)
    state_dir = \(runtime)
    log_path = \(data.alias)/logs/\(options.name).log
    login_greeting = Dovecot ready (\(greetingMark)).
    login_trusted_networks = \(options.trustedNetworks.joined(separator: " "))
    default_internal_user = \(data.user.name)
    default_internal_group = \(data.user.groupID == 0 ? "root" : groupName)
    default_login_user = \(data.user.name)
    # Each session is a process.
    default_process_limit = \(options.maximumSessions)

    ssl = yes
    ssl_cert = <\(data.aliased(certificate.certificatePath))
    ssl_key = <\(data.aliased(certificate.keyPath))
    disable_plaintext_auth = \(options.allowsPlaintext ? "no" : "yes")
    auth_mechanisms = \(options.mechanisms.joined(separator: " "))
    auth_failure_delay = \(options.failureDelaySeconds) secs
    \(databases)
    passdb {
      driver = passwd-file
      # A file per user: a common one is looked at once a second only, and a new user would wait.
      args = \(folder)/users/%Lu
    }
    userdb {
      driver = static
      args = allow_all_users=yes
    }

    mail_uid = \(data.user.userID)
    mail_gid = \(data.user.groupID)
    # System users have low ids.
    first_valid_uid = 1
    first_valid_gid = 1
    mail_home = \(folder)/mail/%d/%n
    mail_location = \(options.store == .maildir ? "maildir:~/Maildir" : "mbox:~/folders:INBOX=~/mbox")
    mbox_read_locks = fcntl
    mbox_write_locks = fcntl
    mail_max_userip_connections = \(options.maximumSessionsPerUser)

    service anvil {
      chroot =
      # Would slow down all logins of the host after refused ones.
      unix_listener anvil-auth-penalty {
        mode = 0
      }
    }
    service auth {
      client_limit = \(max(1000, options.maximumSessions * 4))
      unix_listener auth-client {
        mode = 0666
      }
      unix_listener auth-userdb {
        mode = 0600
      }
    }
    service pop3-login {
      chroot =
      # One process serves many logins.
      service_count = 0
      inet_listener pop3 {
        port = \(ports[0])
      }
      inet_listener pop3s {
        port = \(ports[1])
        ssl = yes
      }
    }
    service pop3 {
      # A process serves one session after another, which is several times cheaper.
      service_count = 256
      process_limit = \(options.maximumSessions)
    }
    \(options.settings)

    """
  }

  /// The databases of masters and tokens.
  private var databases: String {
    var text = ""
    if !options.masters.isEmpty {
      text += """
        auth_master_user_separator = *
        passdb {
          driver = passwd-file
          args = \(folder)/masters
          master = yes
          # The user has to exist too.
          pass = yes
        }

        """
    }
    if let kerberos = options.kerberos {
      text += """
        import_environment = $import_environment KRB5_CONFIG=\(kerberos.configurationPath)
        auth_krb5_keytab = \(kerberos.keytabPath)
        auth_gssapi_hostname = \(kerberos.hostName)

        """
    }
    if options.introspectionURL != nil {
      text += """
        passdb {
          driver = oauth2
          mechanisms = xoauth2 oauthbearer
          args = \(folder)/oauth2.conf
        }

        """
    }
    return text
  }

  /// Files that the configuration names, by their names.
  var extraFiles: [String: String] {
    var files: [String: String] = [:]
    if !options.masters.isEmpty {
      files["masters"] = options.masters.sorted { $0.key < $1.key }
        .map { "\($0.key):{PLAIN.b64}\(Data($0.value.utf8).base64EncodedString())\n" }.joined()
    }
    if let url = options.introspectionURL {
      files["oauth2.conf"] = """
        introspection_mode = get
        introspection_url = \(url)
        force_introspection = yes
        username_attribute = username
        active_attribute = active
        active_value = true

        """
    }
    return files
  }

  private var groupName: String { ServerUser.groupName(data.user.groupID) ?? String(data.user.groupID) }
}
