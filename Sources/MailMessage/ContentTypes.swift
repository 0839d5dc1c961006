/// What a file holds, guessed from its name.
public enum ContentTypes {
  /// `type/subtype` for a file's name; `application/octet-stream` for endings that are not known. Messages count as
  /// files: an attachment of type `message/…` must not be encoded (RFC 2046 section 5.2.1).
  public static func guess(_ fileName: String) -> String {
    guard let dot = fileName.lastIndex(of: "."), dot != fileName.startIndex else { return unknown }
    return known[fileName[fileName.index(after: dot)...].lowercased()] ?? unknown
  }

  private static let unknown = "application/octet-stream"

  private static let known = [
    "txt": "text/plain", "log": "text/plain", "md": "text/markdown", "csv": "text/csv", "htm": "text/html",
    "html": "text/html", "css": "text/css", "ics": "text/calendar", "vcf": "text/vcard", "xml": "application/xml",
    "json": "application/json", "pdf": "application/pdf", "rtf": "application/rtf", "zip": "application/zip",
    "gz": "application/gzip", "tar": "application/x-tar", "7z": "application/x-7z-compressed",
    "doc": "application/msword", "xls": "application/vnd.ms-excel", "ppt": "application/vnd.ms-powerpoint",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "odt": "application/vnd.oasis.opendocument.text", "ods": "application/vnd.oasis.opendocument.spreadsheet",
    "odp": "application/vnd.oasis.opendocument.presentation", "png": "image/png", "jpg": "image/jpeg",
    "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp", "svg": "image/svg+xml", "tif": "image/tiff",
    "tiff": "image/tiff", "bmp": "image/bmp", "heic": "image/heic", "mp3": "audio/mpeg", "wav": "audio/wav",
    "ogg": "audio/ogg", "mp4": "video/mp4", "mov": "video/quicktime", "webm": "video/webm",
  ]
}
