import Foundation
import MailProtocols
import PostriderCore
import Telemetry
import Testing

@testable import AdminServer
@testable import postrider

/// Numbers and names that stand in the files to deploy with and in the code: they must be the same.
@Suite("Files of docker/ and ops/ agree with the code")
struct ManifestTests {
  static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().deletingLastPathComponent()
    .deletingLastPathComponent().path

  private func text(_ path: String) throws -> String {
    try String(contentsOfFile: "\(Self.root)/\(path)", encoding: .utf8)
  }

  /// All files below a folder with their text.
  private func files(_ folder: String) throws -> [(path: String, text: String)] {
    let names = try #require(FileManager.default.subpaths(atPath: "\(Self.root)/\(folder)"))
    return names.sorted().compactMap { name in
      (try? text("\(folder)/\(name)")).map { ("\(folder)/\(name)", $0) }
    }
  }

  /// What stands behind a key, on each line that has it.
  private func values(of key: String, in text: String) -> [String] {
    text.split(separator: "\n").compactMap { line in
      let line = line.trimmingCharacters(in: .whitespaces)
      guard line.hasPrefix(key) else { return nil }
      return line.dropFirst(key.count).trimmingCharacters(in: .whitespaces)
    }
  }

  /// The part of the compose file that describes a service.
  private func service(_ name: String) throws -> String {
    let lines = try text("docker/compose.yaml").split(separator: "\n", omittingEmptySubsequences: false)
    let start = try #require(lines.firstIndex { $0.hasPrefix("  \(name):") })
    let rest = lines[(start + 1)...]
    let end = rest.firstIndex { $0.hasPrefix("  ") && !$0.hasPrefix("   ") && $0.hasSuffix(":") } ?? rest.endIndex
    return rest[..<end].joined(separator: "\n")
  }

  @Test("every POSTRIDER_ variable that a process gets is one that it knows")
  func variables() throws {
    let known = Set(
      Setting.all.flatMap { [$0.environmentName] + ($0.isSecret ? ["\($0.environmentName)_FILE"] : []) }
    ).union(Settings.foreignNames)
    // Compose's own, for the compose file itself.
    let composes: Set = ["POSTRIDER_IMAGE", "POSTRIDER_PORT"]
    var found = 0
    for folder in ["docker", "ops/kubernetes", "ops/systemd"] {
      for (path, text) in try files(folder) {
        for match in text.matches(of: /POSTRIDER_[A-Z_]+[A-Z]/) where !composes.contains(String(match.output)) {
          found += 1
          #expect(known.contains(String(match.output)), "\(path): there is no \(match.output)")
        }
      }
    }
    #expect(found > 50)
  }

  @Test("whoever stops processes waits longer than they may take")
  func times() throws {
    let worker = try #require(Setting.workerGrace.fallback.flatMap(Int.init))
    let graces: [String: Duration] = [
      "scheduler": Deployment.schedulerGrace, "worker": .seconds(worker), "api": Deployment.apiGrace,
    ]
    let general = try #require(values(of: "stop_grace_period:", in: text("docker/compose.yaml")).first)
    for (role, grace) in graces {
      let longest = Int((grace + Deployment.stopMargin * 2).components.seconds)
      let compose = values(of: "stop_grace_period:", in: try service(role)).first ?? general
      #expect(try #require(Int(compose.dropLast())) > longest, "compose.yaml: \(role)")
      let manifest = try text("ops/kubernetes/base/\(role).yaml")
      let pod = try #require(values(of: "terminationGracePeriodSeconds:", in: manifest).first.flatMap(Int.init))
      let before = manifest.contains("/bin/sleep, \"5\"") ? 5 : 0
      #expect(pod > longest + before, "kubernetes: \(role)")
      let unit = try text("ops/systemd/postrider-\(role)\(role == "worker" ? "@" : "").service")
      let unitStop = try #require(values(of: "TimeoutStopSec=", in: unit).first.flatMap(Int.init))
      #expect(unitStop > longest, "systemd: \(role)")
    }
    #expect(try text("ops/README.md").contains("above that \(worker + 10) s"))
  }

  @Test("ports are those of the settings")
  func ports() throws {
    let api = try #require(Setting.apiPort.fallback)
    let probe = try #require(Setting.probePort.fallback)
    #expect(try values(of: "EXPOSE", in: text("docker/Dockerfile")) == ["\(api) \(probe)"])
    #expect(try service("api").contains(":\(api)\"\n"))
    #expect(try text("ops/monitoring/prometheus/compose.yml").contains("port: \(probe),"))
    for role in ["scheduler", "worker", "api"] {
      let manifest = try text("ops/kubernetes/base/\(role).yaml")
      #expect(manifest.contains("{ name: probe, containerPort: \(probe) }"))
      #expect(manifest.contains("{ name: http, containerPort: \(api) }") == (role == "api"))
    }
    #expect(try text("ops/kubernetes/base/api.yaml").contains("port: \(api), targetPort: http"))
    let network = try text("ops/kubernetes/base/network.yaml")
    #expect(network.contains("port: \(api) }") && network.contains("port: \(probe) }"))
    #expect(try text("ops/systemd/postrider-scheduler.service").contains("PROBE_PORT=\(probe)\n"))
    // The ports that mail may go to are those of the egress policy, and that of token endpoints.
    let mail = try #require(network.components(separatedBy: "name: postrider-mail").last)
    let open = Set(mail.matches(of: /port: (\d+)/).compactMap { Int($0.output.1) })
    #expect(open == EgressPolicy.defaultPorts.union([443]))
  }

  @Test("the autoscaler reads what the API serves")
  func scale() throws {
    let scaled = try text("ops/kubernetes/components/autoscaling/scaled-object.yaml")
    #expect(AdminServer.routes.contains { $0.method == "GET" && $0.path == "/api/v1/scale" })
    #expect(scaled.contains("/api/v1/scale\n"))
    let field = try #require(values(of: "valueLocation:", in: scaled).first)
    let hint = ScaleHint(
      workers: 7, inFlight: 0, runnable: 0, meanSessionSeconds: 0, targetSeconds: 0, slotsPerWorker: 0,
      presentWorkers: 0, presentSlots: 0, isCurrent: true)
    let json = try JSONSerialization.jsonObject(with: JSONEncoder().encode(hint)) as? [String: Any]
    #expect(json?[field] as? Int == 7)
    let plain = try text("ops/kubernetes/components/autoscaling-hpa/horizontal-pod-autoscaler.yaml")
    #expect(plain.contains("name: \(MetricNames.workersWanted.name) "))
  }

  @Test("defaults that are written down are the code's")
  func defaults() throws {
    let production = try text("ops/kubernetes/overlays/production/kustomization.yaml")
    for setting in [Setting.workerSessions, .databasePool, .logLevel] {
      #expect(production.contains("\(setting.environmentName)=\(setting.fallback ?? "")\n"), "\(setting.key)")
    }
    let compose = try text("docker/compose.yaml")
    for setting in [Setting.workerSessions, .logLevel] {
      #expect(compose.contains("${\(setting.environmentName):-\(setting.fallback ?? "")}"), "\(setting.key)")
    }
    let readme = try text("ops/README.md")
    var rows = 0
    for setting in Setting.all {
      let row = try Regex("\\| `\(setting.key)` \\| ([^ ]*) \\|", as: (Substring, Substring).self)
      for match in readme.matches(of: row) {
        rows += 1
        #expect(String(match.output.1) == setting.fallback ?? "", "ops/README.md: \(setting.key)")
      }
    }
    #expect(rows == 9)
  }

  @Test("no connection asks for what the image's libpq does not know")
  func certificateAuthorities() throws {
    // The word `system` for sslrootcert came with libpq 16. Debian 12, of which the image is, has 15.
    #expect(try text("docker/Dockerfile").contains("\nFROM debian:bookworm-slim\n"))
    for folder in ["docker", "ops"] {
      for (path, text) in try files(folder) { #expect(!text.contains("sslrootcert=system"), "\(path)") }
    }
    for path in ["README.md", "ops/README.md"] {
      let page = try text(path)
      #expect(!page.contains("sslrootcert=system"), "\(path)")
      #expect(page.contains("sslrootcert=/etc/ssl/certs/ca-certificates.crt"), "\(path)")
    }
  }

  @Test("what waits in files has room, within what the pod may write")
  func room() throws {
    let largest = try #require(Setting.apiMaximumMessage.fallback.flatMap(Int.init))
    for role in ["api", "worker"] {
      let manifest = try text("ops/kubernetes/base/\(role).yaml")
      let size = try #require(manifest.firstMatch(of: /sizeLimit: (\d+)Gi/).flatMap { Int($0.output.1) })
      let limit = try #require(
        manifest.firstMatch(of: /limits: .*ephemeral-storage: (\d+)Gi/).flatMap { Int($0.output.1) })
      #expect(limit >= size, "\(role)")
      #expect(size * 1_024 >= largest * 20, "\(role)")
    }
  }

  @Test("in Compose one service may write the key ring, and the page changes it by that one")
  func keysOfCompose() throws {
    #expect(try service("secrets").contains("- keys:/keys\n"))
    for name in ["migrate", "api"] { #expect(try service(name).contains("- keys:/keys:ro\n"), "\(name)") }
    let page = try text("ops/README.md")
    for command in ["keys add", "keys promote", "keys retire"] {
      let lines = page.split(separator: "\n").filter { $0.contains(" secrets \(command) ") }
      #expect(lines.count == 1 && lines.first?.contains("--file /keys/ring") == true, "\(command)")
    }
  }

  @Test("examples name this version")
  func version() throws {
    #expect(try text("ops/kubernetes/overlays/production/kustomization.yaml").contains("newTag: \(Version.text) }"))
    #expect(try text("ops/kubernetes/init.yaml").contains("postrider:\(Version.text)\n"))
    #expect(try text("docker/.env.example").contains("postrider:\(Version.text)\n"))
  }
}
