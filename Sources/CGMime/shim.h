#ifndef POSTRIDER_CGMIME_SHIM_H
#define POSTRIDER_CGMIME_SHIM_H

#include <gmime/gmime.h>

/* GMime's casts and type checks are macros, which Swift does not see. A cast to a wrong type answers NULL. */

static inline GMimeObject *postrider_message_object(GMimeMessage *message) { return GMIME_OBJECT(message); }

static inline GMimeObject *postrider_part_object(GMimePart *part) { return GMIME_OBJECT(part); }

static inline GMimeObject *postrider_multipart_object(GMimeMultipart *multipart) { return GMIME_OBJECT(multipart); }

static inline GMimePart *postrider_as_part(GMimeObject *object) {
  return GMIME_IS_PART(object) ? GMIME_PART(object) : NULL;
}

static inline GMimeMultipart *postrider_as_multipart(GMimeObject *object) {
  return GMIME_IS_MULTIPART(object) ? GMIME_MULTIPART(object) : NULL;
}

static inline GMimeMessagePart *postrider_as_message_part(GMimeObject *object) {
  return GMIME_IS_MESSAGE_PART(object) ? GMIME_MESSAGE_PART(object) : NULL;
}

static inline InternetAddressMailbox *postrider_as_mailbox(InternetAddress *address) {
  return INTERNET_ADDRESS_IS_MAILBOX(address) ? INTERNET_ADDRESS_MAILBOX(address) : NULL;
}

static inline InternetAddressGroup *postrider_as_group(InternetAddress *address) {
  return INTERNET_ADDRESS_IS_GROUP(address) ? INTERNET_ADDRESS_GROUP(address) : NULL;
}

/* A stream that decodes and converts what it reads from the given one. */
static inline GMimeStream *postrider_filtered(GMimeStream *source) { return g_mime_stream_filter_new(source); }

/* Adds a filter to such a stream, which then owns it. */
static inline void postrider_add_filter(GMimeStream *filtered, GMimeFilter *filter) {
  g_mime_stream_filter_add(GMIME_STREAM_FILTER(filtered), filter);
  g_object_unref(filter);
}

/* The octets written to a memory stream; they belong to the stream. */
static inline GByteArray *postrider_written_bytes(GMimeStream *memory) {
  return g_mime_stream_mem_get_byte_array(GMIME_STREAM_MEM(memory));
}

/* How many octets were written to a null stream. */
static inline gint64 postrider_written_count(GMimeStream *null) { return (gint64) GMIME_STREAM_NULL(null)->written; }

#endif
