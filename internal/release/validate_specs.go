package release

import "path"

func (s *ContainerSpec) validate(field string, layer Layer) error {
	switch {
	case layer == LayerProject && s.Image == "":
		return Invalid(field+".image", "name the image's repository, such as registry.example.com/team/app")
	case layer == LayerVersion && s.ImageTag == "":
		return Invalid(field+".image_tag", "a version needs the tag, or the digest, of its image")
	}
	return validateCommon(field, s.Env, s.Timeout, s.Health, s.PreScript, s.PostScript)
}

func (s *GitSpec) validate(field string, layer Layer) error {
	switch {
	case layer == LayerProject && s.Repository == "":
		return Invalid(field+".repository", "name the repository, such as git@example.com:team/site.git")
	case s.Path != "" && !path.IsAbs(s.Path):
		return Invalid(field+".path", "%q is not an absolute path", s.Path)
	}
	return validateCommon(field, s.Env, s.Timeout, s.Health, s.PreScript, s.PostScript, s.Uninstall)
}

func (s *KubernetesSpec) validate(field string, _ Layer) error {
	if len(s.Manifest) > MaxManifestBytes {
		return Invalid(field+".manifest", "it has %d bytes; the limit is %d", len(s.Manifest), MaxManifestBytes)
	}
	return validateCommon(field, s.Env, s.Timeout, s.Health, s.PreScript, s.PostScript)
}

func validateCommon(field string, env map[string]string, timeout Duration, health *Health, scripts ...string) error {
	return validateScriptCommon(field, "", "", env, timeout, health, scripts...)
}
