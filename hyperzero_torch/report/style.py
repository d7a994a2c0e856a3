"""How a report looks: its stylesheet, and the script that draws the figures."""

CSS = """
:root{--ink:#16181d;--muted:#5d6470;--grid:#e3e6ea;--paper:#ffffff;--page:#f5f6f8;--accent:#0072B2;--blue:#0072B2;--sky:#56B4E9;
--shadow:0 1px 2px rgba(20,24,32,.06),0 2px 10px rgba(20,24,32,.04)}
@media (prefers-color-scheme:dark){:root{--ink:#eceef1;--muted:#a2a9b4;--grid:#30353d;
--paper:#191c21;--page:#101215;--accent:#56B4E9;--blue:#3b9ce0;--sky:#a9dcf7;--shadow:none}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%;scroll-behavior:smooth}
body{margin:0;background:var(--page);color:var(--ink);line-height:1.5;
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header,main,.note{max-width:1180px;margin:0 auto;padding:0 20px}
header{padding-top:36px}
h1{font-size:clamp(1.7rem,4.5vw,2.5rem);line-height:1.15;letter-spacing:-.02em;margin:.1em 0 .2em;
overflow-wrap:anywhere}
h2{font-size:1.35rem;letter-spacing:-.01em;margin:0 0 .5em}
h3,figcaption{font-size:1rem;font-weight:600;margin:0 0 .5em;overflow-wrap:anywhere}
header p,main p{color:var(--muted);margin:.2em 0 1em;max-width:75ch;overflow-wrap:anywhere}
.eyebrow{text-transform:uppercase;letter-spacing:.09em;font-size:.75rem;font-weight:600;margin:0}
nav{display:flex;flex-wrap:wrap;gap:6px 18px;padding-bottom:8px;border-bottom:1px solid var(--grid)}
nav a{color:var(--accent);text-decoration:none;font-size:.9rem}
nav a:hover{text-decoration:underline}
section{padding:34px 0 0}
main{padding-bottom:64px}
.blocks{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,430px),1fr));gap:16px;
align-items:start}
.blocks>*{min-width:0}
.wide{grid-column:1/-1}
.blocks>p{margin:0}
figure,.sheet,.tiles>div{background:var(--paper);border:1px solid var(--grid);border-radius:12px;
box-shadow:var(--shadow)}
figure,.sheet{margin:0;padding:16px}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,205px),1fr));gap:12px;
margin:0}
.tiles>div{padding:12px 16px;min-width:0}
dt{color:var(--muted);font-size:.82rem}
dd{margin:0;font-size:1.55rem;font-weight:650;letter-spacing:-.02em;line-height:1.25;
font-variant-numeric:tabular-nums}
dd.hint{font-size:.82rem;font-weight:400;letter-spacing:0;color:var(--muted);line-height:1.4;
overflow-wrap:anywhere;margin-top:2px}
.legend{display:flex;flex-wrap:wrap;gap:2px 16px;list-style:none;margin:0 0 6px;padding:0;
font-size:.82rem;color:var(--muted)}
.legend li{display:flex;align-items:center;gap:6px}
.legend i{flex:none;width:12px;height:12px;background:var(--c)}
.legend .circle{border-radius:50%;width:10px;height:10px;box-shadow:0 0 0 1px var(--muted)}
.legend .ring{border-radius:50%;width:10px;height:10px;background:none;border:2px solid var(--c)}
.legend .square{border-radius:2px;box-shadow:0 0 0 1px var(--grid)}
.legend .diamond{transform:rotate(45deg) scale(.75)}
.legend .star{clip-path:polygon(50% 0,63% 34%,100% 36%,71% 58%,82% 94%,50% 73%,18% 94%,29% 58%,
0 36%,37% 34%);width:15px;height:15px}
.legend .bar{width:3px;height:13px}
.legend .solid,.legend .dashed,.legend .dotted{background:none;width:20px;height:0;
border-top:2px solid var(--c)}
.legend .dashed{border-top-style:dashed}
.legend .border{width:22px;height:12px;border-radius:2px;background:linear-gradient(90deg,var(--c)
60%,transparent 0) 0 5px/8px 2px repeat-x #575d6d}
.legend .dotted{border-top-style:dotted}
.legend .striped{border-radius:2px;
background:repeating-linear-gradient(135deg,var(--c) 0 3px,#fff 3px 4.5px)}
.plot{width:100%;overflow:hidden}
details{margin-top:6px;font-size:.85rem}
summary{cursor:pointer;color:var(--muted)}
.scroll{overflow:auto;max-height:420px;margin-top:6px}
.sheet .scroll{max-height:none;margin-top:0}
table{border-collapse:collapse;width:100%;font-size:.86rem;font-variant-numeric:tabular-nums}
th{color:var(--muted);font-weight:600;text-align:left;position:sticky;top:0;
background:var(--paper)}
th,td{padding:5px 12px 5px 0;border-bottom:1px solid var(--grid);vertical-align:top}
td:first-child{overflow-wrap:anywhere;min-width:5.5em}
.n{text-align:right;white-space:nowrap}
th.n{white-space:normal}
th:last-child,td:last-child{padding-right:2px}
.modebar-container{opacity:.75}
@media (max-width:560px){header,main{padding-left:12px;padding-right:12px}
figure,.sheet{padding:12px 10px}.tiles{grid-template-columns:repeat(2,minmax(0,1fr));gap:8px}
.tiles>div{padding:10px 12px}.tiles>div:first-child{grid-column:1/-1}dd{font-size:1.3rem}
table{font-size:.8rem}th,td{padding-right:8px}td:first-child{min-width:4.5em}}
@media print{body{background:#fff}figure,.sheet,.tiles>div{break-inside:avoid;box-shadow:none}
nav{display:none}}
"""

# "@ink" and its like are colours of the stylesheet, so that plots follow light and dark.
SCRIPT = """
(function(){
"use strict";
var figures=__FIGURES__;
var hovers=matchMedia("(hover: hover)").matches;
var config={displayModeBar:hovers?"hover":false,responsive:false,displaylogo:false,
modeBarButtonsToRemove:["select2d","lasso2d","autoScale2d"]};
function color(value,style){
  var parts=value.slice(1).split("/"),found=parts[0];
  if(found[0]!=="#"){found=style.getPropertyValue("--"+found).trim();}
  if(parts.length===1){return found;}
  var rgb=[1,3,5].map(function(i){return parseInt(found.slice(i,i+2),16);});
  return "rgba("+rgb.join(",")+","+parts[1]+")";
}
function resolve(value,style,key){
  if(Array.isArray(value)){return value.map(function(v){return resolve(v,style,key);});}
  if(value&&typeof value==="object"){
    var out={};
    Object.keys(value).forEach(function(k){out[k]=resolve(value[k],style,k);});
    return out;
  }
  if(typeof value==="string"&&value[0]==="@"&&/color$/.test(key)){
    return color(value,style);
  }
  if(key==="family"&&value==="inherit"){return style.fontFamily;}
  return value;
}
function draw(){
  var style=getComputedStyle(document.body);
  figures.forEach(function(figure,i){
    var drawn=resolve(figure,style,"");
    Plotly.react("plot-"+i,drawn.data,drawn.layout,config);
  });
}
draw();
// A plot follows its own box: a window may change without it, and it without the window.
var boxes=new ResizeObserver(function(entries){
  entries.forEach(function(entry){Plotly.Plots.resize(entry.target);});
});
document.querySelectorAll(".plot").forEach(function(plot){boxes.observe(plot);});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change",draw);
})();
"""
