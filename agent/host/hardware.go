package host

import (
	"context"
	"encoding/binary"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/shirou/gopsutil/v4/cpu"
	"github.com/shirou/gopsutil/v4/mem"

	"github.com/quicflow/quicflow/agent/command"
)

// Hardware is the result of system.collect_info. What the host does not tell, or not to the agent's user, is left out.
type Hardware struct {
	CPU        CPU               `json:"cpu"`
	Memory     MemoryHardware    `json:"memory"`
	Block      []BlockDevice     `json:"block_devices"`
	Interfaces []Interface       `json:"network_interfaces"`
	DMI        map[string]string `json:"dmi,omitempty"` // vendor, product, board, BIOS
}

// CPU is the model and number of a host's CPUs.
type CPU struct {
	Vendor  string  `json:"vendor,omitempty"`
	Model   string  `json:"model,omitempty"`
	Sockets int     `json:"sockets,omitempty"`
	Cores   int     `json:"cores,omitempty"`
	Threads int     `json:"threads"`
	MHz     float64 `json:"mhz,omitempty"`
	CacheKB int32   `json:"cache_kb,omitempty"`
}

// MemoryHardware is in bytes.
type MemoryHardware struct {
	Total   uint64         `json:"total"`
	Modules []MemoryModule `json:"modules,omitempty"` // as the firmware lists them, which only root may read
}

// MemoryModule is a module in its slot.
type MemoryModule struct {
	Slot         string `json:"slot"`
	Size         uint64 `json:"size"` // bytes
	Type         string `json:"type,omitempty"`
	SpeedMTs     uint16 `json:"speed_mts,omitempty"` // million transfers a second
	Manufacturer string `json:"manufacturer,omitempty"`
	Serial       string `json:"serial,omitempty"`
	Part         string `json:"part,omitempty"`
}

// BlockDevice is a disk.
type BlockDevice struct {
	Name       string `json:"name"`
	Size       uint64 `json:"size"` // bytes
	Vendor     string `json:"vendor,omitempty"`
	Model      string `json:"model,omitempty"`
	Serial     string `json:"serial,omitempty"`
	Rotational bool   `json:"rotational"`
	Removable  bool   `json:"removable"`
	ReadOnly   bool   `json:"read_only"`
}

// Interface is a network interface.
type Interface struct {
	Name      string   `json:"name"`
	MAC       string   `json:"mac,omitempty"`
	MTU       int      `json:"mtu"`
	Up        bool     `json:"up"`
	SpeedMbps int      `json:"speed_mbps,omitempty"`
	Driver    string   `json:"driver,omitempty"`
	Addresses []string `json:"addresses,omitempty"` // with prefix length
}

func collectInfo(ctx context.Context, call *command.Call) (any, error) {
	if err := call.Decode(new(struct{})); err != nil {
		return nil, err
	}
	h := &Hardware{CPU: readCPU(ctx), Block: readBlockDevices("/sys/block"), Interfaces: []Interface{}, DMI: readDMI("/sys/class/dmi/id")}
	m, err := mem.VirtualMemoryWithContext(ctx)
	if err != nil {
		return nil, err
	}
	h.Memory.Total = m.Total
	if table, err := os.ReadFile("/sys/firmware/dmi/tables/DMI"); err == nil {
		h.Memory.Modules = memoryModules(table)
	}
	interfaces, err := net.Interfaces()
	if err != nil {
		return nil, err
	}
	for _, i := range interfaces {
		h.Interfaces = append(h.Interfaces, readInterface(i))
	}
	return h, ctx.Err()
}

func readCPU(ctx context.Context) CPU {
	var c CPU
	c.Threads, _ = cpu.CountsWithContext(ctx, true)
	c.Cores, _ = cpu.CountsWithContext(ctx, false)
	list, err := cpu.InfoWithContext(ctx)
	if err != nil || len(list) == 0 {
		return c
	}
	sockets := map[string]bool{}
	for _, one := range list {
		sockets[one.PhysicalID] = true
	}
	c.Sockets = len(sockets)
	c.Vendor, c.Model, c.MHz, c.CacheKB = list[0].VendorID, list[0].ModelName, list[0].Mhz, list[0].CacheSize
	return c
}

// readBlockDevices lists disks; loop devices and RAM disks are none.
func readBlockDevices(dir string) []BlockDevice {
	devices := []BlockDevice{}
	names, err := os.ReadDir(dir)
	if err != nil {
		return devices
	}
	for _, n := range names {
		name := n.Name()
		if strings.HasPrefix(name, "loop") || strings.HasPrefix(name, "ram") || strings.HasPrefix(name, "zram") {
			continue
		}
		at := func(file string) string { return line(filepath.Join(dir, name, file)) }
		sectors, _ := strconv.ParseUint(at("size"), 10, 64)
		devices = append(devices, BlockDevice{
			Name: name, Size: sectors * 512, Vendor: at("device/vendor"), Model: at("device/model"), Serial: at("device/serial"),
			Rotational: at("queue/rotational") == "1", Removable: at("removable") == "1", ReadOnly: at("ro") == "1",
		})
	}
	return devices
}

func readInterface(i net.Interface) Interface {
	e := Interface{Name: i.Name, MAC: i.HardwareAddr.String(), MTU: i.MTU, Up: i.Flags&net.FlagUp != 0}
	dir := filepath.Join("/sys/class/net", i.Name)
	if speed, err := strconv.Atoi(line(filepath.Join(dir, "speed"))); err == nil && speed > 0 {
		e.SpeedMbps = speed
	}
	if driver, err := os.Readlink(filepath.Join(dir, "device/driver")); err == nil {
		e.Driver = filepath.Base(driver)
	}
	addresses, _ := i.Addrs()
	for _, a := range addresses {
		e.Addresses = append(e.Addresses, a.String())
	}
	slices.Sort(e.Addresses)
	return e
}

// readDMI reads what the kernel shows of the firmware's tables.
func readDMI(dir string) map[string]string {
	found := map[string]string{}
	for _, name := range []string{
		"sys_vendor", "product_name", "product_version", "product_serial", "product_uuid", "board_vendor", "board_name", "board_serial",
		"chassis_type", "chassis_serial", "bios_vendor", "bios_version", "bios_date",
	} {
		if text := line(filepath.Join(dir, name)); text != "" {
			found[name] = text
		}
	}
	return found
}

// line is a file's only line, empty if it cannot be read.
func line(path string) string {
	text, _ := os.ReadFile(path)
	return strings.TrimSpace(strings.ToValidUTF8(string(text), ""))
}

var memoryTypes = map[byte]string{
	0x12: "DDR", 0x13: "DDR2", 0x18: "DDR3", 0x1a: "DDR4", 0x1b: "LPDDR", 0x1c: "LPDDR2", 0x1d: "LPDDR3", 0x1e: "LPDDR4", 0x22: "DDR5", 0x23: "LPDDR5",
}

// memoryModules reads structures of type 17 of an SMBIOS table (DSP0134, section 7.18): each is a header of type, length and
// handle, its fields, and strings that end in two zero bytes.
func memoryModules(table []byte) []MemoryModule {
	var modules []MemoryModule
	for len(table) >= 4 && int(table[1]) >= 4 && int(table[1]) <= len(table) {
		fields := table[:table[1]]
		end := int(table[1])
		for end+1 < len(table) && (table[end] != 0 || table[end+1] != 0) {
			end++
		}
		texts := strings.Split(string(table[len(fields):min(end, len(table))]), "\x00")
		table = table[min(end+2, len(table)):]
		if fields[0] != 17 || len(fields) < 0x1b {
			continue
		}
		text := func(at int) string {
			if n := int(fields[at]); n > 0 && n <= len(texts) {
				return strings.TrimSpace(strings.ToValidUTF8(texts[n-1], ""))
			}
			return ""
		}
		m := MemoryModule{
			Slot: text(0x10), Type: memoryTypes[fields[0x12]], SpeedMTs: binary.LittleEndian.Uint16(fields[0x15:]),
			Manufacturer: text(0x17), Serial: text(0x18), Part: text(0x1a),
		}
		switch size := binary.LittleEndian.Uint16(fields[0x0c:]); {
		case size == 0 || size == 0xffff: // an empty slot, or not known
			continue
		case size == 0x7fff && len(fields) >= 0x20:
			m.Size = uint64(binary.LittleEndian.Uint32(fields[0x1c:])&0x7fffffff) << 20
		case size&0x8000 != 0:
			m.Size = uint64(size&0x7fff) << 10
		default:
			m.Size = uint64(size) << 20
		}
		modules = append(modules, m)
	}
	return modules
}
