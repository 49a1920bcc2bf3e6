// CoreDNS with the plugin that reads etcd, and no other that answers.
package main

import (
	"github.com/coredns/coredns/core/dnsserver"
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/etcd"
)

func main() {
	dnsserver.Directives = []string{"errors", "etcd"}
	coremain.Run()
}
