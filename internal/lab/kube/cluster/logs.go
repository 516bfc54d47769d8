package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// serveLogs serves what kubectl logs asks of a node, and gives the port. The API server does not check the certificate unless it is
// told to.
func (k *kubelet) serveLogs() (int, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return 0, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(24 * time.Hour)}
	certificate, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return 0, err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", k.logs)
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{certificate}, PrivateKey: key}}}}
	go func() {
		if err := server.ServeTLS(listener, "", ""); !errors.Is(err, http.ErrServerClosed) {
			log.Fatal(err)
		}
	}()
	return listener.Addr().(*net.TCPAddr).Port, nil
}

type line struct {
	at   time.Time
	text string
}

// written is what the container has written by now: two lines, and one more as often as its Pod's annotation says; next is when the
// next will be.
func written(pod *corev1.Pod, container string, now time.Time) (lines []line, next time.Time) {
	if pod.Status.StartTime == nil {
		return nil, now.Add(100 * time.Millisecond)
	}
	start := pod.Status.StartTime.Time
	lines = []line{{start, "starting " + container}}
	switch behaviour(pod) {
	case missing:
		return nil, time.Time{}
	case crashes:
		return append(lines, line{start, "panic: the lab lets it crash"}), time.Time{}
	}
	lines = append(lines, line{start, "listening"})
	every := duration(pod, annotationLogEvery)
	if every <= 0 {
		return lines, time.Time{}
	}
	n := 1
	for ; !start.Add(time.Duration(n) * every).After(now); n++ {
		lines = append(lines, line{start.Add(time.Duration(n) * every), "line " + strconv.Itoa(n)})
	}
	return lines, start.Add(time.Duration(n) * every)
}

func (k *kubelet) logs(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query()
	since := time.Time{}
	if text := query.Get("sinceTime"); text != "" {
		since, _ = time.Parse(time.RFC3339, text)
	}
	if seconds, err := strconv.Atoi(query.Get("sinceSeconds")); err == nil {
		since = time.Now().Add(-time.Duration(seconds) * time.Second)
	}
	tail, tailed := -1, query.Get("tailLines") != ""
	if tailed {
		tail, _ = strconv.Atoi(query.Get("tailLines"))
	}
	sent := -1
	for {
		pod, err := k.pods.Pods(r.PathValue("namespace")).Get(r.PathValue("pod"))
		if err != nil {
			if sent < 0 {
				http.Error(w, err.Error(), http.StatusNotFound)
			}
			return
		}
		lines, next := written(pod, r.PathValue("container"), time.Now())
		if sent < 0 {
			sent = 0
			if tailed {
				sent = max(0, len(lines)-tail)
			}
		}
		for _, l := range lines[min(sent, len(lines)):] {
			if l.at.Before(since) {
				continue
			}
			if query.Get("timestamps") == "true" {
				fmt.Fprint(w, l.at.UTC().Format(time.RFC3339Nano), " ")
			}
			fmt.Fprintln(w, l.text)
		}
		sent = max(sent, len(lines))
		if query.Get("follow") != "true" {
			return
		}
		_ = http.NewResponseController(w).Flush()
		wait := 100 * time.Millisecond // the Pod may be gone by then
		if !next.IsZero() {
			wait = min(wait, time.Until(next))
		}
		select {
		case <-r.Context().Done():
			return
		case <-time.After(wait):
		}
	}
}
