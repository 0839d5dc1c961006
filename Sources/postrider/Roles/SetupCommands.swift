import ArgumentParser
import Foundation
import Logging
import PostgresStore
import PostriderCore

/// `postrider migrate`
struct MigrateCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "migrate", abstract: "Brings the database's schema up to date.",
    discussion: """
      Safe to run at every start and by several at once; forward only. Uses POSTRIDER_DATABASE_MIGRATE_URL (the owner
      of the schema) where given, and lets the role of POSTRIDER_DATABASE_URL work with the schema without owning it; a
      missing role is created with the password of that URL.

      Example: POSTRIDER_DATABASE_URL=… postrider migrate
      """)

  @OptionGroup var role: RoleOptions

  @Flag(name: .long, help: "Only say which migrations are applied and which are missing.")
  var status = false

  func run() async throws {
    let settings = try await role.settings(required: [.databaseURL])
    let deployment = Deployment(settings, role: "migrate")
    let url = try settings.required(.databaseURL)
    let migrator = Migrator(
      url: settings.text(.databaseMigrateURL) ?? url, applicationURL: url, logger: deployment.logger)
    do {
      if status {
        for migration in try await migrator.status() {
          let state = migration.appliedAt.map { "applied \($0)" } ?? "missing"
          print("\(migration.version)  \(migration.name)  \(state)\(migration.isKnown ? "" : ", of a newer release")")
        }
      } else {
        let applied = try await migrator.migrate()
        print(
          applied.isEmpty ? "The schema is up to date." : "Applied \(applied.map(String.init).joined(separator: ", "))."
        )
      }
    } catch StoreError.unavailable(let reason) {
      throw ServiceUnreachable(description: "PostgreSQL cannot be reached: \(reason)")
    }
  }
}

/// `postrider init`
struct InitCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "init", abstract: "Creates an organization with its first administrator and prints a token.",
    discussion: """
      The token is shown once; only its hash is stored. Further ones: postrider token create --help

      Example: postrider init --organization Example --admin-address ann@example.com
      """)

  @OptionGroup var role: RoleOptions

  @Option(name: .long, help: "The organization's name, unique in this installation.")
  var organization: String

  @Option(name: .long, help: "The administrator's e-mail address.")
  var adminAddress: String

  @Option(name: .long, help: "The administrator's display name (default: the address).")
  var adminName: String?

  func run() async throws {
    try await role.printToken(as: "init") { bootstrap in
      try await bootstrap.createOrganization(
        name: organization, administratorName: adminName ?? adminAddress, administratorAddress: adminAddress
      ).token
    }
  }
}

extension RoleOptions {
  /// Prints the token that is made with the rights of the database's owner.
  func printToken(as role: String, _ make: (Bootstrap) async throws -> Secret) async throws {
    let settings = try await settings(required: [.databaseURL])
    let deployment = Deployment(settings, role: role)
    let url = try settings.text(.databaseMigrateURL) ?? settings.required(.databaseURL)
    do {
      print(try await make(Bootstrap(url: url, logger: deployment.logger)).revealed)
    } catch StoreError.unavailable(let reason) {
      throw ServiceUnreachable(description: "PostgreSQL cannot be reached: \(reason)")
    }
  }
}

/// `postrider config`
struct ConfigCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "config", abstract: "The configuration of the roles.", subcommands: [List.self, Check.self],
    defaultSubcommand: List.self)

  /// `postrider config list`
  struct List: AsyncParsableCommand {
    static let configuration = CommandConfiguration(abstract: "Prints every key with its range and default.")

    func run() async throws {
      for setting in Setting.all {
        print(setting.environmentName)
        print("    \(setting.help)")
        print(
          "    file: \(setting.key); range: \(setting.range); default: \(setting.fallback ?? "none")"
            + (setting.isSecret ? "; secret, also as \(setting.environmentName)_FILE" : ""))
      }
    }
  }

  /// `postrider config check`
  struct Check: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Checks the configuration and prints what is set, without secrets.")

    @OptionGroup var role: RoleOptions

    func run() async throws {
      let settings = try await role.settings(required: [])
      // What only makes sense together is checked together.
      if settings.text(.redisURL) != nil { _ = try settings.queueConfiguration() }
      for setting in Setting.all {
        guard let value = settings.text(setting) else { continue }
        print("\(setting.key) = \(setting.isSecret ? "«secret»" : value)")
      }
    }
  }
}
