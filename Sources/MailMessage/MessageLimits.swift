/// The bounds on what one message may cost. What is beyond a bound is left out of the parse and named in
/// ``ParsedMessage/problems``; the raw message is never changed.
public struct MessageLimits: Hashable, Sendable {
  /// An attachment above this many octets (decoded) is listed without its content.
  public var maximumAttachmentOctets: Int64
  /// How deep multiparts are followed, 1 and up. GMime itself stops at 1,024.
  public var maximumNesting: Int
  /// How many parts are looked at.
  public var maximumParts: Int
  /// How many octets of UTF-8 each of the text and the HTML body may have.
  public var maximumTextOctets: Int
  /// How many header lines all parts together may have.
  public var maximumHeaderLines: Int
  /// How many octets the headers of all parts together may have.
  public var maximumHeaderOctets: Int
  /// Where large attachments go to files of their own while they are decoded; `nil` to keep all in memory.
  public var spoolDirectory: String?
  /// With a spool directory: attachments in memory have no more octets together.
  public var attachmentMemoryOctets = 262_144

  /// The product's defaults: 5 MiB attachments, 1 MiB of text, 1 MiB of headers, which is as much as mail servers take.
  public init(
    maximumAttachmentOctets: Int64 = 5 << 20, maximumNesting: Int = 50, maximumParts: Int = 1_000,
    maximumTextOctets: Int = 1 << 20, maximumHeaderLines: Int = 20_000, maximumHeaderOctets: Int = 1 << 20
  ) {
    self.maximumAttachmentOctets = maximumAttachmentOctets
    self.maximumNesting = maximumNesting
    self.maximumParts = maximumParts
    self.maximumTextOctets = maximumTextOctets
    self.maximumHeaderLines = maximumHeaderLines
    self.maximumHeaderOctets = maximumHeaderOctets
  }

  /// How many lines that begin with two hyphens, and so may delimit parts, GMime is given.
  ///
  /// GMime makes an object of every part before anybody can count them; a message of bare delimiter lines would cost
  /// a hundred times its size. Ordinary text (patches, SQL) has many such lines too, so only those count that begin like
  /// a boundary which some header of the message names.
  var maximumDelimiterLines: Int { maximumParts * 4 }
}
