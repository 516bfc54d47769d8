package release

// Artifact is a file, or an archive, that a version brings to its hosts. Its content is known by its SHA-256: it is uploaded to the
// server, or the agent fetches it from a URL.
type Artifact struct {
	Name   string `json:"name" doc:"File name below the release directory; for an archive that is unpacked, a name for messages" example:"app.tar.gz"`
	SHA256 string `json:"sha256" doc:"Of its content, 64 hexadecimal digits" example:"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"`
	URL    string `json:"url,omitempty" doc:"http or https address to fetch it from. Left out: it was uploaded to the server"`
	Unpack string `json:"unpack,omitempty" enum:"tar,tar.gz,tar.zst,zip," doc:"Archive format to unpack into the release directory. Left out: it stays a file"`
	Strip  int    `json:"strip,omitempty" minimum:"0" maximum:"10" doc:"Leading directories to leave out of an archive's paths"`
	Mode   string `json:"mode,omitempty" pattern:"^0?[0-7]{3}$" doc:"Of a file, octal. Defaults to 0644" example:"0755"`
}
